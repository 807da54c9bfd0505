# The kumodr image. `docker build .` makes it on debian:bookworm-slim; --build-arg BASE=… takes any Debian with Python 3.11,
# and what it has already, Python or all of the locked packages, is not installed again. See docs/container.md.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ENV PATH=/opt/kumodr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/kumodr PYTHONUNBUFFERED=1
WORKDIR /etc/kumodr
# Healthy means: every objective of the plan in the working directory is met now.
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s CMD ["kumodr", "status", "--json"]
ENTRYPOINT ["kumodr"]
CMD ["protect"]
COPY requirements-image.lock script/image-packages /opt/build/
RUN /opt/build/image-packages /opt/build
COPY kumodr /opt/kumodr/application/kumodr
RUN python3 -m compileall -q /opt/kumodr/application
# The numbers are those of kumod in KumoMTA's own image; where it has others, say --user.
USER 1000:1000
