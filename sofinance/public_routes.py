"""Every route that answers somebody who has not signed in, and why it may.

`sofinance routes --unprotected` and the suite fail for a public route that is not in this list,
and for one in it that is gone.
"""

from __future__ import annotations

PUBLIC_ROUTES = {
    "GET /.well-known/jwks.json": "others verify tokens with the public keys",
    "GET /api/v1/info": "says what answers here, nothing of anybody",
    "GET /api/v1/attachments/signed-download": "takes a signed link",
    "GET /api/v1/portal/me": "takes a customer's session in the portal",
    "GET /api/v1/portal/receipts": "takes a customer's session in the portal",
    "GET /api/v1/portal/receipts/{id}": "takes a customer's session in the portal",
    "GET /api/v1/portal/statement": "takes a customer's session in the portal",
    "DELETE /api/v1/portal/sessions/current": "takes a customer's session in the portal",
    "GET /api/v1/mail/unsubscribe": "takes the token of a mail; shows a button",
    "GET /docs": "Swagger UI",
    "GET /docs/static/{name}": "Swagger UI's files",
    "GET /health": "for probes",
    "GET /health/live": "for probes",
    "GET /health/ready": "for probes",
    "GET /healthz": "for probes",
    "GET /livez": "for probes",
    "GET /metrics": "for Prometheus; METRICS_TOKEN protects it",
    "GET /openapi.json": "the description of the API",
    "GET /api/v1/notifications/ws": "a WebSocket: who it is comes with it, or in its first message",
    "GET /ping": "for probes",
    "GET /readyz": "for probes",
    "GET /swagger.json": "the description of the API",
    "GET /v1/metrics": "for Prometheus; METRICS_TOKEN protects it",
    "POST /api/v1/auth/login": "signs in",
    "POST /api/v1/auth/password-reset": "takes the token of a mail",
    "POST /api/v1/auth/password-reset-request": "sends a mail; with a captcha, if there is one",
    "POST /api/v1/auth/refresh": "takes a refresh token",
    "POST /api/v1/auth/till": "signs in on a till, by its credential and a PIN",
    "POST /api/v1/auth/token": "signs in, for OAuth2 tools",
    "POST /api/v1/mail/unsubscribe": "takes the token of a mail",
    "POST /api/v1/portal/links": "sends a mail; only with PORTAL_URL, with a captcha, if there is",
    "POST /api/v1/portal/sessions": "takes the token of a mail, once; only with PORTAL_URL",
    "POST /api/v1/payments/stripe/webhook": "takes what Stripe signed",
    "POST /api/v1/sign-up": "sends a mail; only with SIGN_UP_ENABLED, with a captcha, if there is",
    "POST /api/v1/sign-up/confirm": "takes the token of a mail; only with SIGN_UP_ENABLED",
    "POST /api/v1/tills/pair": "takes the one-time code that somebody made for the till",
    "POST /stripe/webhook": "takes what Stripe signed",
}
