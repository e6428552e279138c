"""The faults, by the numbers of the list they are from; each says what it did."""
