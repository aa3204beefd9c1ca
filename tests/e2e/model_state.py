"""What model.py believes: about the jobs, truly, and what its workers believe."""
from dataclasses import dataclass, field


@dataclass
class Entry:
    """An accepted entry, as it really is. holder: (worker, process, fence)."""
    id: str
    fields: dict
    holder: tuple = None
    bound: int = None      # fence of the last start
    crashes: int = 0
    put_off: bool = False  # by its own delay_ms


@dataclass
class Life:
    """A job's life, from its first entry to its end."""
    ended: str = None
    asked: bool = False  # to be canceled, in its hash
    starts: int = 0
    failures: int = 0    # that passed
    key: str = None      # unique key that it holds
    workers: list = field(default_factory=list)  # that started it


@dataclass
class Slot:
    """A job that a worker believes to hold."""
    at: tuple
    fence: int
    fields: dict
    id: str
    crashes: int
    word: str = None     # of start.lua
    seq: int = 0
    seed: str = ""
    attempt: int = 0
    held_ms: int = 10
    again: tuple = None  # a call without a reply: (verb, details, answer, around)

    def where(self):
        return self.at, self.id, self.fields.get("unique")


@dataclass
class Worker:
    name: str
    process: int
    own: str = "left"
    slots: list = field(default_factory=list)
    tidy: list = field(default_factory=lambda: ["-"] * 3)
