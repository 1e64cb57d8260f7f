# Two stages: the first builds wheels, the second runs them. Needs no capability but NET_ADMIN:
#   docker run --cap-drop=ALL --cap-add=NET_ADMIN --network=host IMAGE --device=eth0 ...
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY envelope envelope
COPY twisted twisted
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables nftables \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links=/wheels envelope \
    # twistd caches its list of plugins where a read-only container cannot.
    && twistd --help > /dev/null
WORKDIR /
EXPOSE 8880
STOPSIGNAL SIGTERM
ENTRYPOINT ["twistd", "-n", "--pidfile=", "envelope"]
