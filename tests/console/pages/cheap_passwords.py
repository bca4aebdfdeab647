"""Everyone's password, hashed in advance with the lowest bcrypt cost that Vault accepts: a login takes Vault 2 ms of processor time instead of 60."""

from __future__ import annotations

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
    "oncall": "$2b$05$SP4ecvU8vKpOEL0MyyHOsOd6oMk6vspJZuQ705N/6ixC8xcuemUPa",
}
"""By login name; whoever adds a person makes theirs with `htpasswd -nbBC 5 NAME NAME-pass-word`."""
PASSWORDS = {name: f"{name}-pass-word" for name in HASHES}
