"""A stand-in for kumod: as the real one on disk and on the wire, for the lab. The facts are KumoMTA's own source."""
