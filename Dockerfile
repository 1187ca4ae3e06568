# The hub, and a PgBouncer to put before it: docker-compose.yml builds both; README says how to run them.

FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml README.md ./
COPY hub hub
COPY static static
COPY sql sql
# The environment gets no pip: nothing in the image is to install anything.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/pghub \
    && pip --python /opt/pghub install --only-binary :all: /wheels/*.whl


FROM debian:trixie-slim AS pgbouncer
# hadolint ignore=DL3008 # Debian keeps no version but the newest
RUN apt-get update \
    && apt-get install --yes --no-install-recommends pgbouncer \
    && rm -rf /var/lib/apt/lists/*
COPY <<END /etc/pgbouncer/hub.ini
[databases]
hub = host=database port=5432
[pgbouncer]
listen_addr = *
listen_port = 5432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /tmp/users.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
log_stats = 0
END

USER 10002:10002
STOPSIGNAL SIGINT
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["bash", "-c", ": </dev/tcp/127.0.0.1/5432"]
# The password comes by the environment, as the hub's does, and PgBouncer wants a file.
ENTRYPOINT ["bash", "-c", "umask 077; printf '\"hub\" \"%s\"\\n' \"${PGPASSWORD//'\"'/'\"\"'}\" >/tmp/users.txt; exec pgbouncer /etc/pgbouncer/hub.ini"]


FROM python:3.13-slim-trixie AS hub
COPY --from=build /opt/pghub /opt/pghub
ENV PATH=/opt/pghub/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HUB_HOST=0.0.0.0 \
    HUB_PORT=8080
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-Ic", "import http.client, os; to = http.client.HTTPConnection('127.0.0.1', os.environ['HUB_PORT'], timeout=2); to.request('GET', '/healthz'); raise SystemExit(to.getresponse().status != 200)"]
ENTRYPOINT ["pghub"]
CMD ["serve"]
