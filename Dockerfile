# The kumodr image. `docker build .` makes it on debian:bookworm-slim; with --build-arg BASE=… any Debian with Python 3.11
# will do, and what the base has already is not installed again. Wheels that lie in `wheels/` are taken from there, and
# then no package index is asked. See docs/container.md.
ARG BASE=debian:bookworm-slim

# The numbers are those of KumoMTA's own image; where kumod has others, say --user (docs/container.md).
FROM ${BASE} AS python
RUN { command -v python3 >/dev/null \
        || { apt-get update -q && apt-get install -q -y --no-install-recommends python3 ca-certificates \
            && rm -rf /var/lib/apt/lists/*; }; } \
    && { getent passwd 1000 >/dev/null || { groupadd --gid 1000 kumod \
            && useradd --uid 1000 --gid 1000 --home-dir /var/lib/kumodr --shell /usr/sbin/nologin kumod; }; } \
    && install -d -m 1777 /var/lib/kumodr

# Exactly the locked versions: pip refuses a file that has another hash.
FROM python AS packages
COPY requirements-image.lock wheel[s] /build/
RUN { python3 -c 'import ensurepip' 2>/dev/null \
        || { apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv; }; } \
    && if ls /build/*.whl >/dev/null 2>&1; then from="--no-index --find-links=/build"; fi \
    && python3 -m venv /opt/kumodr \
    && /opt/kumodr/bin/pip install -q --disable-pip-version-check --root-user-action=ignore $from \
        --no-deps --require-hashes -r /build/requirements-image.lock \
    && echo /opt/kumodr/application >"$(/opt/kumodr/bin/python -c 'import site; print(site.getsitepackages()[0])')/kumodr.pth" \
    && printf '#!/opt/kumodr/bin/python\nfrom kumodr.cli.main import entry\n\nentry()\n' >/opt/kumodr/bin/kumodr \
    && chmod 755 /opt/kumodr/bin/kumodr \
    && /opt/kumodr/bin/pip uninstall -q -y --root-user-action=ignore setuptools pip

FROM python AS application
COPY kumodr /opt/kumodr/application/kumodr
RUN python3 -m compileall -q /opt/kumodr/application

FROM python
ENV PATH=/opt/kumodr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/kumodr PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /etc/kumodr
# Healthy means: every objective of the plan in the working directory is met now.
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s CMD ["kumodr", "status", "--json"]
ENTRYPOINT ["kumodr"]
CMD ["protect"]
COPY --from=packages /opt/kumodr /opt/kumodr
COPY --from=application /opt/kumodr/application /opt/kumodr/application
