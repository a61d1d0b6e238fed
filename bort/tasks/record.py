"""ReCoRD (Zhang et al. 2018): a news text, and a sentence about it with an entity of the text left out; one row per candidate.

Notable: the published code balances the candidates of every segment, so a model never meets all the wrong ones that the leaderboard asks
about. Here only the training rows are balanced, and a model is judged on all candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bort.errors import BortError
from bort.tasks.json_fields import JsonObject
from bort.tasks.reading import Row, read_lines


@dataclass(frozen=True)
class Queries:
    """ReCoRD's files: one news text per line, with ``qas``, its queries, and the places of its entities.

    Args:
        balanced: give as many wrong candidates as right ones, for training, and not all of them.
    """

    balanced: bool = False

    def rows(self, path: Path, labelled: bool) -> Iterator[Row]:
        """As ``Layout.rows``; one row per candidate, its ``id`` the query's ``idx``, its label whether it is among the query's answers."""
        for line, text in read_lines(path):
            row = JsonObject.parse(text, f"{path}, line {line}")
            passage = row.child("passage")
            passage_text = passage.text("text")
            entities = sorted({_entity(place, passage_text) for place in passage.children("entities", "entity")})
            if not entities and not self.balanced:
                raise BortError(f'{passage.where}: nothing in the field "entities", so there is nothing to answer with')
            # Every row of a text shares this one string.
            passage_text = passage_text.replace("\n", " ")
            for query in row.children("qas", "query"):
                query_text = query.text("query")
                has_answers = labelled or query.values.get("answers") is not None
                answers = tuple(dict.fromkeys(answer.text("text") for answer in query.children("answers", "answer"))) if has_answers else ()
                for entity in _balanced(entities, answers) if self.balanced else entities:
                    yield Row(
                        line=line,
                        id=query.number("idx"),
                        texts=(passage_text, query_text.replace("@placeholder", entity)),
                        label=int(entity in answers) if has_answers else None,
                        where=query.where,
                        candidate=entity,
                        answers=answers,
                    )


def _entity(place: JsonObject, text: str) -> str:
    """The words of an entity; ``start`` and ``end`` are its first and its last character."""
    start, end = place.number("start"), place.number("end")
    if not start <= end < len(text):
        raise BortError(f"{place.where}: characters {start} to {end} of a text that has {len(text)}")
    return text[start : end + 1]


def _balanced(entities: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Right and wrong candidates in turn, equally many; all right ones and then all wrong ones if fewer are wrong.

    The rule is the published code's.
    """
    right = [entity for entity in entities if entity in answers]
    wrong = [entity for entity in entities if entity not in answers]
    if len(right) > len(wrong):
        return right + wrong
    return [entity for pair in zip(right, wrong, strict=False) for entity in pair]
