"""The lab site in containers: an ordinary compose project, of images made from Debian packages."""
