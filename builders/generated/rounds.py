"""Goes round the prompts, each time with other seeds, until the model has written as much as is wanted."""

import random
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from builders.generated.answers import Tally
from builders.generated.speaker import Render, begun, thought
from config import progress
from config.errors import MeasurementError
from config.prompt import Part, Prompt
from engines.llama import Vocabulary
from engines.parallel import Job, Written
from engines.repetition import repetitions

ANSWER = 512  # tokens of one answer, at most
SHORTEST = 32  # tokens that there must be room for, or nothing more is asked
FRESH = 0.1  # of the last round's texts must not have been written before, or another round is not worth it
ROUNDS = 64  # at most: the short answers of a small model make a few thousand tokens a round
EXPECTED = 128  # tokens of an answer before any has ended


@dataclass(kw_only=True)
class Text:
    """One conversation, or one opening that was gone on with."""

    prompt: int  # its number
    round: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: Sequence[dict[str, Any]] = ()
    whole: str = ""  # of a base model, which has no messages
    tokens: int = 0  # of what may be kept; 0: nothing
    job: Job | None = None  # how it goes on
    opened: str = ""  # what the template begins the next answer with

    @property
    def said(self) -> str:
        """All of it."""
        return self.whole or "\n".join(str(message["content"]) for message in self.messages)


@dataclass(kw_only=True)
class Rounds(ABC):
    """The `engines.parallel.Work` of one part. Texts are kept in the order in which they were begun: whatever ends first, short answers are not preferred."""

    part: Part
    vocabulary: Vocabulary
    wanted: int  # tokens
    length: int  # tokens of one text, at most
    drawn_of_all: progress.Tally  # tokens of all parts together
    tally: Tally = field(default_factory=Tally)
    begun: list[Text] = field(default_factory=list)
    tokens: int = 0  # of the texts that have ended
    _waiting: deque[Job] = field(default_factory=deque)  # the next turns of texts that go on
    _seen: set[str] = field(default_factory=set)
    _fresh: deque[bool] = field(default_factory=deque)  # of the last texts, whether each was new
    _writing: int = 0  # answers at work
    _asked: int = 0  # tokens of their prompts
    _drawn: int = 0
    _told: int = 0  # of `drawn_of_all`
    _order: Iterator[Text] | None = None

    @property
    @abstractmethod
    def prompts(self) -> int:
        """How many there are."""

    @abstractmethod
    def start(self, text: Text) -> None:
        """Give the text its first job, unless the model cannot be asked this."""

    @abstractmethod
    def take(self, text: Text, job: Job, written: Written) -> None:
        """Take an answer into its text, and give that another job if it goes on."""

    def following(self) -> Job | None:
        """The next turn of a conversation that goes on, or a new text unless there is enough, counting what is being written."""
        if self._waiting:
            return self._opened(self._waiting.popleft())
        if self._order is None:
            self._order = self._rounds()
        while not self._enough and (text := next(self._order, None)) is not None:
            self.start(text)
            if text.job is not None:
                self.begun.append(text)
                return self._opened(text.job)
        return None

    def done(self, job: Job, written: Written) -> None:
        """Take an answer."""
        text = job.of
        if not isinstance(text, Text):
            raise TypeError("this answer belongs to no text")
        self._writing -= 1
        self._asked -= len(job.prompt)
        text.job = None
        self.take(text, job, written)
        if text.job is not None:
            self._waiting.append(text.job)
        else:
            self._close(text)

    def drawn(self, tokens: int) -> None:
        """Report how much is there; an answer counts while it is written."""
        self._drawn += tokens
        there = min(self.wanted, max(self.tokens, self._drawn))
        self.drawn_of_all.add(there - self._told)
        self._told = there

    def spoiled(self, tokens: Sequence[int]) -> bool:
        """An answer that runs in circles is dropped in any case."""
        return bool(repetitions(tokens))

    @property
    def kept(self) -> list[Text]:
        """The texts with something in them, each once."""
        return [text for text in self.begun if text.tokens]

    def _close(self, text: Text) -> None:
        fresh = text.tokens > 0 and text.said not in self._seen
        self._seen.add(text.said)
        self._fresh.append(fresh)
        if len(self._fresh) > self.prompts:
            self._fresh.popleft()
        if not fresh:
            text.tokens = 0
        self.tokens += text.tokens

    @property
    def _enough(self) -> bool:
        usual = self._drawn / self.tally.answers if self.tally.answers else EXPECTED
        stale = len(self._fresh) == self.prompts and sum(self._fresh) < FRESH * self.prompts
        return self.tokens + self._asked + self._writing * usual >= self.wanted or stale or self.tally.hopeless

    def _opened(self, job: Job) -> Job:
        self._writing += 1
        self._asked += len(job.prompt)
        return job

    def _rounds(self) -> Iterator[Text]:
        for number in range(ROUNDS):
            order = list(range(self.prompts))
            random.Random(f"{self.part} {number}").shuffle(order)  # noqa: S311 (nothing secret)
            yield from (Text(prompt=prompt, round=number) for prompt in order)

    def job(self, text: Text, prompt: Sequence[int], turn: int = 0) -> Job | None:
        """An answer of the text after this prompt, with a seed of its own, the same for every model; None where there is no room for one."""
        most = min(ANSWER, self.length - len(prompt))
        seed = zlib.crc32(f"{self.part} {text.round} {text.prompt} {turn}".encode())
        return Job(prompt=prompt, most=most, seed=seed, of=text) if most >= SHORTEST else None

    def words(self, written: Written) -> str:
        """What was written, without half a character at the end of what was cut off."""
        text = self.vocabulary.detokenize(written.tokens) if written.tokens else ""
        return text if written.end is not None else text.rstrip("\ufffd")


@dataclass(kw_only=True)
class Conversations(Rounds):
    """Asks a model that chats, turn by turn."""

    questions: Sequence[Prompt]
    render: Render
    refused: dict[int, str] = field(default_factory=dict)  # by prompt, what the template said

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.questions)

    def start(self, text: Text) -> None:
        """Ask the first question."""
        given = self.questions[text.prompt]
        text.messages = [] if given.system is None else [{"role": "system", "content": given.system}]
        text.tools = given.tools
        if text.prompt not in self.refused:
            try:
                self._ask(text, given.turns[0], turn=0)
            except MeasurementError as error:  # some templates take no system message, or no tools
                self.refused[text.prompt] = str(error)

    def take(self, text: Text, job: Job, written: Written) -> None:
        """Take the answer, and ask the next question; a conversation ends before an answer that is dropped, and after one that was cut off."""
        said, question = self.words(written), str(text.messages[-1]["content"])
        if not self.tally.add(written.tokens, said, asked=question, ended=written.end is not None):
            text.messages.pop()
            return
        text.messages.append({"role": "assistant", "content": text.opened + said})
        text.tokens = len(job.prompt) + len(written.tokens)
        turns, turn = self.questions[text.prompt].turns, sum(message["role"] == "assistant" for message in text.messages)
        if written.end is None or turn == len(turns):
            return
        with suppress(MeasurementError):  # a template may not take what its own model said
            self._ask(text, turns[turn], turn=turn)
        if text.job is None:
            text.messages.pop()

    def _ask(self, text: Text, question: str, *, turn: int) -> None:
        text.messages.append({"role": "user", "content": question})
        rendered = self.render(text.messages, text.tools)
        text.opened = thought(rendered)
        text.job = self.job(text, begun(self.vocabulary, rendered), turn)


@dataclass(kw_only=True)
class Continuations(Rounds):
    """Lets a base model go on with openings."""

    openings: Sequence[str]

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.openings)

    def start(self, text: Text) -> None:
        """Begin with an opening, in which special tokens do not count as such."""
        tokens = self.vocabulary.tokenize(self.openings[text.prompt], add_special=False, parse_special=False)
        text.job = self.job(text, [*([self.vocabulary.bos] if self.vocabulary.adds_bos and self.vocabulary.bos is not None else []), *tokens])

    def take(self, text: Text, job: Job, written: Written) -> None:
        """Take what follows."""
        opening, said = self.openings[text.prompt], self.words(written)
        if self.tally.add(written.tokens, said, asked=opening, ended=written.end is not None):
            text.whole = opening + said
            text.tokens = len(job.prompt) + len(written.tokens)
