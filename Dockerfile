# The service's image; `--target backup` is the same with PostgreSQL's programs, for backups.
# docs/deploy.md says how to build and run it. The suite runs every step below without Docker, and
# lints them (tests/ops/test_image.py).

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
# First what seldom changes. Versions and hashes are pinned. Only wheels, so that nothing is compiled,
# but for one package that has none; setuptools, which makes it one, does not stay.
COPY requirements requirements
RUN python -m venv --without-pip /opt/sofinance \
    && python -m pip --python /opt/sofinance install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt \
    && python -m pip --python /opt/sofinance install --require-hashes --no-deps --only-binary :all: --no-binary aiohttp-apispec --no-build-isolation -r requirements/service.txt
COPY pyproject.toml README.md LICENSE ./
COPY sql sql
COPY sofinance sofinance
RUN python -m pip --python /opt/sofinance wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/sofinance install --no-deps --no-index --find-links dist sofinance \
    && python -m pip --python /opt/sofinance uninstall --yes setuptools \
    && /opt/sofinance/bin/sofinance --version

FROM build AS build-backup
RUN python -m pip --python /opt/sofinance install --require-hashes --no-deps --only-binary :all: -r requirements/postgresql.txt

FROM python:3.13-slim AS service
# What a commit is called, for /debug/version: docker build --build-arg GIT_COMMIT=$(git rev-parse --short HEAD)
ARG GIT_COMMIT=""
ENV PATH=/opt/sofinance/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GIT_COMMIT=$GIT_COMMIT \
    HOST=0.0.0.0 \
    PORT=8000 \
    SOFINANCE_CONFIG_DIR=/etc/sofinance
COPY config /etc/sofinance
COPY --from=build /opt/sofinance /opt/sofinance
# A number, so that Kubernetes can see that it is not root. Nothing below is writable for it.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# Readiness drains; the process ends by itself within DRAIN_DELAY_S + SHUTDOWN_TIMEOUT_S.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/live', timeout=4)"]
ENTRYPOINT ["sofinance"]
# gunicorn takes the first process's place: it passes signals on and reaps what ends.
CMD ["serve", "--workers", "0"]

FROM service AS backup
COPY --from=build-backup /opt/sofinance /opt/sofinance
# `sofinance drill` makes a PostgreSQL, whose initdb refuses an account without a name.
USER 0:0
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sofinance
USER 10001:10001
HEALTHCHECK NONE
CMD ["backup"]

# The last stage is what `docker build .` makes.
FROM service
