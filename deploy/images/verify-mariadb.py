"""What `verify` asks of `muster-mariadb` inside its image: which volumes may join a cluster. No part of the image."""
import importlib.machinery
import importlib.util

loader = importlib.machinery.SourceFileLoader("member", "/usr/local/bin/muster-mariadb")
member = importlib.util.module_from_spec(importlib.util.spec_from_loader("member", loader))
loader.exec_module(member)

OURS, OTHER, NONE = "5a3f7c1e-0000-11ef-8000-000000000001", "77777777-0000-11ef-8000-000000000002", member.NO_HISTORY


def peer(uuid=OURS, position=100, queue=0, primary=True, history=OURS):
    return {"primary": primary, "uuid": uuid, "position": position, "queue": queue, "history": history}


def joins(at, recorded="", copying=False, peers=(peer(),), data=True):
    return not member.foreign(data, at, recorded, copying, list(peers))


waiting = peer(uuid=None, primary=False)
# A member that is back, a new one, one whose copy was interrupted.
assert joins(f"{OURS}:90", OURS) and joins(f"{OURS}:90") and joins(None, data=False) and joins(None, OURS, data=False)
assert joins(f"{NONE}:-1", copying=True) and joins(f"{NONE}:-1", OURS)
# Another cluster's, whoever knows it: the others in their view, the others that wait, the volume itself.
assert not joins(f"{OTHER}:90") and not joins(f"{OTHER}:90", peers=[waiting]) and not joins(f"{OTHER}:90", OURS, peers=[])
assert not joins(f"{OTHER}:90", copying=True)
# A server's that was in no cluster.
assert not joins(f"{NONE}:-1")
# Nobody knows better; or the others are not of one mind, which is for the coordinators to tell.
assert joins(f"{OURS}:90", peers=[]) and joins(f"{NONE}:-1", peers=[waiting])
assert joins(f"{OURS}:90", OURS, peers=[peer(), peer(uuid=OTHER, history=OTHER)])
# Others that have lost track of theirs say nothing.
assert joins(f"{OURS}:90", OURS, peers=[peer(uuid=NONE)])

# Writes that nobody else has, unless the others have only yet to apply them.
assert member.behind(f"{OURS}:101", [peer(), peer(position=99)]) == 100
assert member.behind(f"{OURS}:101", [peer(queue=1)]) is None and member.behind(f"{OURS}:100", [peer()]) is None
assert member.behind(f"{OURS}:101", []) is None and member.behind(f"{OURS}:101", [waiting]) is None
assert member.behind(f"{OURS}:101", [peer(uuid=OTHER)]) is None and member.behind(None, [peer()]) is None
