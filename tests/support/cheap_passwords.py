"""Everyone's password, hashed in advance with the lowest bcrypt cost that Vault accepts: a login takes Vault 2 ms of processor time instead of 60."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import httpx

HASHES = {
    "ops": "$2b$05$t3zrCxJJjxSrVFMkHt.cHueHRv1sWpFo.i1lPrzURADsZxCb7W9fK",
    "lead": "$2b$05$SLZuQjx5IIYTmY77vy2aQO86r10f4fkg5Ge7Sd/rVMpZcQLMZvori",
    "chief": "$2b$05$XBhIN9SKlvPMxxCWiTTWq.T52G9mbN279GXLolrHIFoKio.0N2lwe",
    "gone": "$2b$05$I4jJbRplW/Y9VectXe5PxuHsWBVNUex0MA4FkQL5rcwORVk2d9luq",
    "mallory": "$2b$05$fkP/BaZa1/QYkixZ9oXY0OZ5i46FFvpugI0ebZneqrGXVObYxPZlS",
    "guessed": "$2b$05$6Yr4zsFfUdtp1QQ8zx0pju4vsziZb4bpbSlBryFZJpVcJzjDguNOC",
    "outsider": "$2b$05$QSLQAOP44iouYWm2Mo70.OqfQwnF1IEzADrGF2D22aWpjy2QQHiXC",
    "auditor": "$2b$05$.fLgF6j21cpZQPKkiig.c.df4LGtRu497FUg.fEM7tUT7oeB.JT.W",
    "security": "$2b$05$NbpNIgz9xbY9XV2PrnIrZugKg/XNHWAqe2TiaGtm9dnisPC2BhbSW",
    "chief2": "$2b$05$b4YWeebttaKokmnLzumCj.M1aUtjx57wiLuig7qpDOsriX3RUuLBy",
    "ops2": "$2b$05$hBu4RkgTnVpQOnG0tCBFD.1v5qiMKOFuaN/aNb0Zuo6D.Mf3Jr9ya",
    "nobody": "$2b$05$th3G668GOfqW/MD3F/JWXuF2yKaG23fTVDhJG0Uw9ERR57KJ33PJi",
    "oncall": "$2b$05$SP4ecvU8vKpOEL0MyyHOsOd6oMk6vspJZuQ705N/6ixC8xcuemUPa",
}
"""By login name; whoever adds a person makes theirs with `htpasswd -nbBC 5 NAME NAME-pass-word`."""
PASSWORDS = {name: f"{name}-pass-word" for name in HASHES}


def create_users(vault: httpx.Client, mounts: Iterable[str], names: Iterable[str]) -> None:
    """Create these people at new userpass mounts, before `vault setup`: it finds that they have their passwords, and does the rest."""
    mounts = tuple(mounts)
    for mount in mounts:
        vault.post(f"sys/auth/{mount}", json={"type": "userpass"}).raise_for_status()
    for mount, name in product(mounts, names):
        vault.post(f"auth/{mount}/users/{name}", json={"password_hash": HASHES[name]}).raise_for_status()
