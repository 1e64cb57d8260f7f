# The service in a container: needs NET_ADMIN and the network of the host or pod that it guards.
#   docker run --network=host --cap-drop=ALL --cap-add=NET_ADMIN \
#       -v /etc/envelope:/etc/envelope:ro IMAGE --device=eth0 --cert=… --key=… --verify-key=… …

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/envelope \
 && /opt/envelope/bin/pip install --no-cache-dir -c constraints.txt . \
    # twistd writes a cache beside the plugin; where the container runs, these files are read-only.
 && /opt/envelope/bin/twistd --help | grep -q envelope

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables nftables \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/envelope /opt/envelope
ENV PATH=/opt/envelope/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# iptables-legacy locks a file in /run, and twistd needs a working folder.
WORKDIR /run
EXPOSE 8880
STOPSIGNAL SIGTERM
# The kernel drops signals to process 1 until it has handlers; blocked ones wait for them.
ENTRYPOINT ["env", "--block-signal=TERM,INT,QUIT", "twistd", "-n", "--pidfile=", "envelope"]
