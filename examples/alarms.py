"""Do something later: an alarm is kept with the object and fires also after a restart.

perdure run alarms:app

curl -d '["tea", 3]' http://127.0.0.1:8000/rpc/Reminders/ann/remind
curl -d '[]' http://127.0.0.1:8000/rpc/Reminders/ann/told          three seconds later
"""

from perdure import AlarmInfo, App, DurableObject, callable


class Reminders(DurableObject):
    """One person's reminders. An object has one alarm; a table makes it many."""

    migrations = ("CREATE TABLE reminders(due_ms INTEGER NOT NULL, text TEXT NOT NULL, told INTEGER DEFAULT 0)",)

    @callable
    async def remind(self, text: str, in_seconds: float) -> None:
        due_ms = self.now_ms() + round(in_seconds * 1000)
        self.storage.sql("INSERT INTO reminders(due_ms, text) VALUES(?, ?)", due_ms, text)
        self._set_alarm()

    @callable
    async def told(self) -> list[str]:
        return [row["text"] for row in self.storage.sql("SELECT text FROM reminders WHERE told ORDER BY due_ms")]

    async def on_alarm(self, info: AlarmInfo) -> None:
        """Runs at least once for each alarm: what it does must bear a second time."""
        due = "due_ms <= ? AND NOT told"
        for row in self.storage.sql(f"SELECT text FROM reminders WHERE {due} ORDER BY due_ms", self.now_ms()):
            self.broadcast(row["text"])  # to whoever is connected to /objects/Reminders/ann
        self.storage.sql(f"UPDATE reminders SET told = 1 WHERE {due}", self.now_ms())
        self._set_alarm()

    def _set_alarm(self) -> None:
        [row] = self.storage.sql("SELECT min(due_ms) AS next_ms FROM reminders WHERE NOT told")
        if row["next_ms"] is not None:
            self.set_alarm(row["next_ms"])


app = App([Reminders])
