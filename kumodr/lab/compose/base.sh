# Run in the new Debian by mmdebstrap: the accounts and folders that the images of KumoMTA, Redis and Prometheus have.
# KumoMTA's own image counts kumod as 1000 too; its packages give spool and logs this mode (facts §6).
groupadd --gid 1000 kumod
useradd --uid 1000 --gid 1000 --home-dir /var/lib/kumodr --shell /usr/sbin/nologin kumod
install -d -m 2770 -o kumod -g kumod /var/spool/kumomta /var/log/kumomta
install -d -m 755 -o redis -g redis /data
install -d -m 1777 /prometheus
install -d /opt/kumomta/sbin /opt/kumomta/etc/policy
cat >/opt/kumomta/sbin/kumod <<'SCRIPT'
#!/bin/sh
exec /opt/kumodr/bin/python -m kumodr.lab.kumod "$@"
SCRIPT
chmod 755 /opt/kumomta/sbin/kumod
