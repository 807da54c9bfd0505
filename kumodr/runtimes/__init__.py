"""How the programs of a site are started, stopped and looked into, wherever they run."""
