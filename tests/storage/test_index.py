"""The node index: what exists, and when it is due."""

from __future__ import annotations

from perdure.values import ObjectId

from .conftest import Node


def test_objects_are_listed_when_they_are_durable(node: Node) -> None:
    """Those active last come first; a class can be chosen, a limit set."""
    for name in ("a", "b", "c"):
        opened = node.open(name)
        opened.storage.put("key", 1)
        node.store.commit(opened)
        assert not node.store.index.exists(ObjectId("Room", name))
        node.store.journal.pump()
        assert node.store.index.exists(ObjectId("Room", name))
        node.store.close_object(opened)
    assert {entry.object_id for entry in node.store.index.objects()} == {
        ObjectId("Room", "a"),
        ObjectId("Room", "b"),
        ObjectId("Room", "c"),
    }
    assert len(node.store.index.objects(limit=2)) == 2
    assert node.store.index.objects("Other") == []
    assert len(node.store.index.objects("Room")) == 3
    assert len(node.store.index.objects(without=["Other", "Else"])) == 3
    assert node.store.index.objects(without=["Room"]) == []


def test_alarms_come_in_order(node: Node) -> None:
    """Earliest first, whatever the order of setting; a name may hold a slash."""
    for name, at_ms in (("late", 300), ("early", 100), ("a/b", 200)):
        opened = node.open(name)
        opened.storage.set_alarm(at_ms)
        node.save(opened)
        node.store.close_object(opened)
    assert list(node.store.index.alarms()) == [
        (ObjectId("Room", "early"), 100),
        (ObjectId("Room", "a/b"), 200),
        (ObjectId("Room", "late"), 300),
    ]
