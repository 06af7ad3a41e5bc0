"""Donors, and prompts with another number of thoughts."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm.data import prosqa
from coconut_lm.methods import Curriculum, Rows
from coconut_lm.tokens import add_latent_tokens, encode, latent_tokens, word_tokenizer
from coconut_lm.treatments import Counted, deranged

MEMBERS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd")), min_size=1, max_size=30)


@settings(deadline=None, max_examples=150)
@given(MEMBERS, st.integers(0, 5))
def test_everyone_gives_to_one_other_of_the_kind_and_of_another_gold_where_that_can_be(
    members: list[tuple[int, str]], seed: int
) -> None:
    kinds, golds = [kind for kind, _ in members], [gold for _, gold in members]
    donors = deranged(kinds, golds, seed)
    given_away = [donor for donor in donors if donor is not None]
    assert len({*given_away}) == len(given_away)
    alone = {kind for kind, count in Counter(kinds).items() if count == 1}
    for own, donor in enumerate(donors):
        assert (donor is None) == (kinds[own] in alone)
        assert donor is None or (donor != own and kinds[donor] == kinds[own])
    for kind in {*kinds} - alone:
        those = [i for i, each in enumerate(kinds) if each == kind]
        largest = max(Counter(golds[i] for i in those).values())
        same = sum(golds[donors[i] or 0] == golds[i] for i in those)
        assert same == max(0, 2 * largest - len(those))  # no pairing has fewer


def test_another_seed_pairs_otherwise() -> None:
    golds = [str(i) for i in range(40)]
    assert deranged([0] * 40, golds, 1) == deranged([0] * 40, golds, 1) != deranged([0] * 40, golds, 2)


def test_prompts_with_so_many_thoughts_each() -> None:
    examples = list(prosqa.make(3, seed=1, nodes=8, edges=6, hops=3, shape="sized", style="symbols"))
    tokenizer = word_tokenizer([" ".join([e.question, *e.steps, e.answer]) for e in examples])
    add_latent_tokens(tokenizer)
    rows = Rows(
        encode(examples, tokenizer), latent_tokens(tokenizer), "coconut", Curriculum(max_latent_stage=2)
    )
    counted = Counted(rows, [0, 1, 5])
    assert [counted.prompt(i, 2).thoughts for i in range(3)] == [0, 1, 5]
    assert [rows.prompt(i, 2).thoughts for i in range(3)] == [2, 2, 2]
    assert counted.prompt(1, 2, 4).thoughts == 1 and len(counted) == 3
    assert counted.row(2, 2).input_ids.tolist() == rows.row(2, 2).input_ids.tolist()
