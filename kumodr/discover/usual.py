"""A mail site that nothing describes: the places where KumoMTA's packages put things, and what was said besides."""

from pathlib import Path

from kumodr.discover.site import CONFIG, POLICY, Located, Site, reach_here


def look_at_usual_places() -> Site:
    """Return the site whose mail server sees the paths of this host."""
    return Site(
        source="the usual places",
        runtime={},
        policy=POLICY,
        environment=None,
        locate=lambda path: Located(Path(path).absolute()),
        reach=reach_here,
        configuration=lambda live: ([Path(CONFIG)] if Path(CONFIG).is_dir() else [], []),
        redis=None,
        prometheus=None,
    )
