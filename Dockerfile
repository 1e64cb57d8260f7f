# The service in a container: needs NET_ADMIN and the network of the host or pod that it guards.
#   docker run --network=host --read-only --cap-drop=ALL --cap-add=NET_ADMIN \
#       -v /etc/envelope:/etc/envelope:ro IMAGE --device=eth0 --cert=… --key=… --verify-key=… …
# docs/operations.md says more; tools/try-image runs these steps on a machine without an engine.

ARG BASE=debian:trixie-20260918-slim@sha256:a99cfc517144bc59b1978475ec53b46ecabec7e43635402ee5b77cc54cd1b20a

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv
WORKDIR /source
COPY . .
# The constraints hold for what builds the package, too. --copies, because the interpreter gets a
# capability below. twistd writes a cache beside the plugin; where the container runs, it cannot.
RUN python3 -m venv --copies /opt/envelope \
 && PIP_CONSTRAINT=/source/constraints.txt /opt/envelope/bin/pip install --no-cache-dir . \
 && /opt/envelope/bin/twistd --help | grep -q envelope \
 && /opt/envelope/bin/pip uninstall -q -y pip

FROM ${BASE}
# The base is of a fixed day: what was mended in Debian since then comes with the upgrade.
RUN apt-get update \
 && apt-get upgrade -y \
 && apt-get install -y --no-install-recommends iptables libcap2-bin nftables python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid=65532 --user-group --no-create-home --home-dir=/ envelope \
 && install -d -o envelope -g envelope -m 0700 /run/envelope
COPY --from=build /opt/envelope /opt/envelope
COPY tools/sbom /usr/local/bin/sbom
# Of the capability only the permitted bit is set: the service takes it if the container has it, and a
# container that needs no firewall starts without.
RUN setcap cap_net_admin=p "$(readlink -f /opt/envelope/bin/python3)" \
 && mkdir -p /usr/share/sbom \
 && /opt/envelope/bin/python3 /usr/local/bin/sbom > /usr/share/sbom/envelope.cdx.json
ENV PATH=/opt/envelope/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="envelope" \
      org.opencontainers.image.description="Opens a host's firewall for a client with a valid token" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
EXPOSE 8880
STOPSIGNAL SIGTERM
# Of the default --admin; `docker run --health-cmd` or `--no-healthcheck` for another one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python3", "-c", "from http.client import HTTPConnection as H; h = H('127.0.0.1', 9990, timeout=4); h.request('GET', '/readyz'); raise SystemExit(h.getresponse().status != 200)"]
# Instead of an init: the kernel drops signals to process 1 until it has handlers; blocked ones wait
# for them, so that a stop during the start is a clean stop. The service starts no process that
# outlives its parent.
ENTRYPOINT ["env", "--block-signal=TERM,INT,QUIT", "twistd", "-n", "--pidfile=", "envelope"]
