"""Answers judged: what was written, what is right, and whether they are the same."""

import threading

import pytest

from coconut_lm.data import gsm8k, latex, math, prosqa
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example, Task

TASKS: dict[str, Task] = {
    "number": gsm8k.TASK,
    "latex": math.TASK,
    "words": prosqa.TASK,
    "reference": gsm8k.NumberTask("gsm8k", scoring="reference"),
    "reference latex": math.LatexTask("math", scoring="reference"),
}

# What stands before the answer in most outputs.
CHAIN = "<<16-3=13>>\n<<13*2=26>>\n### "

# task, right answer, what was written, verdict
NUMBERS = [
    ("18", CHAIN + "18", True),
    ("18", CHAIN + "18.0", True),
    ("18", CHAIN + "18.", True),
    ("18", CHAIN + "18.00", True),
    ("18", CHAIN + "$18", True),
    ("18", CHAIN + "$18.00", True),
    ("18", CHAIN + "18 dollars", True),
    ("18", CHAIN + "18 eggs per day.", True),
    ("18", CHAIN + "€ 18", True),
    ("18", CHAIN + "18€", True),
    ("18", CHAIN + "18%", True),
    ("18", CHAIN + "18 percent", True),
    ("18", CHAIN + "**18**", True),
    ("18", CHAIN + "+18", True),
    ("18", CHAIN + "x = 18", True),
    ("18", CHAIN + "9 * 2 = 18", True),
    ("18", CHAIN + "9*2=$18 a day", True),
    ("18", CHAIN + "\n18\n", True),
    ("18", CHAIN + "\\boxed{18}", True),
    ("18", CHAIN + "$18$", True),
    ("18", "#### 18", True),
    ("18", "9 and 9, so the answer is 18.", True),
    ("18", "The final answer is: $18. He keeps the other 5.", True),
    ("18", "Answer: 18", True),
    ("18", "#### Step 1\n16 - 7 = 9\n#### Answer\nShe makes 18 dollars", True),
    ("18", "### Step 2: 9 * 2\nso \\boxed{18}", True),
    ("18", "He had 20 and gave away 2, which leaves 18", True),
    ("18", CHAIN + "19", False),
    ("18", CHAIN + "-18", False),
    ("18", CHAIN + "18.5", False),
    ("18", CHAIN + "1.8", False),
    ("18", CHAIN + "180", False),
    ("18", CHAIN + "1,8", False),
    ("18", CHAIN, False),
    ("18", CHAIN + "no idea", False),
    ("18", "18 dollars, then 3 more", False),
    ("18", "", False),
    ("26", CHAIN, False),
    ("70,000", CHAIN + "70000", True),
    ("70000", CHAIN + "$70,000", True),
    ("70000", CHAIN + "70,000.00", True),
    ("70000", CHAIN + "70", False),
    ("70000", CHAIN + "70.000", False),
    ("1234567", CHAIN + "1,234,567", True),
    ("1234567", CHAIN + "1\u202f234\u202f567", True),
    ("1234567", CHAIN + "1{,}234{,}567", True),
    ("-5", CHAIN + "-5", True),
    ("-5", CHAIN + "\u22125", True),
    ("-5", CHAIN + "- 5", True),
    ("-5", CHAIN + "-$5", True),
    ("-5", CHAIN + "$-5", True),
    ("-5", CHAIN + "5", False),
    ("5", CHAIN + "10-5", False),
    ("0.5", CHAIN + ".5", True),
    ("0.5", CHAIN + "1/2", True),
    ("0.5", CHAIN + "\u00bd", True),
    ("0.5", CHAIN + "\\frac{1}{2}", True),
    ("0.5", CHAIN + "\\dfrac12", True),
    ("0.5", CHAIN + "50%", False),
    ("1.5", CHAIN + "1 1/2", True),
    ("1.5", CHAIN + "3/2 cups", True),
    ("60", CHAIN + "60%", True),
    ("60", CHAIN + "0.6", False),
    ("1/3", CHAIN + "1/3", True),
    ("1/3", CHAIN + "2/6", True),
    ("1/3", CHAIN + "0.33", False),
    ("100000", CHAIN + "1e5", True),
    ("7", CHAIN + "9" * 5000, False),
    ("7", CHAIN + "7/0", False),
    ("five", CHAIN + "Five.", True),
    ("five", CHAIN + "six", False),
]

REFERENCE = [
    ("18", CHAIN + "18", True),
    ("18", CHAIN + " 18 \n", True),
    ("1,800", CHAIN + "1800", True),
    ("1800", CHAIN + "1,800", True),
    ("18", CHAIN + "18.0", False),
    ("18", CHAIN + "$18", False),
    ("18", CHAIN + "18.", False),
    ("18", "The answer is 18", False),
    ("18", "", False),
]

LATEX = [
    ("\\frac{1}{2}", "1/2", True),
    ("\\frac{1}{2}", "\\dfrac{1}{2}", True),
    ("\\frac{1}{2}", "\\frac12", True),
    ("\\frac{1}{2}", "0.5", True),
    ("\\frac{1}{2}", ".5", True),
    ("\\frac{1}{2}", "\\frac{2}{4}", True),
    ("\\frac{1}{2}", "\\frac{1}{3}", False),
    ("\\frac{1}{2}", "0.51", False),
    ("-\\frac{7}{2}", "\\frac{-7}{2}", True),
    ("-\\frac{7}{2}", "\\frac{7}{2}", False),
    ("1\\frac{1}{2}", "\\frac{3}{2}", True),
    ("\\frac{x+2}{7}", "(x+2)/7", True),
    ("\\frac{\\sqrt2}{2}", "\\frac{1}{\\sqrt{2}}", True),
    ("2\\sqrt{2}", "\\sqrt{8}", True),
    ("\\sqrt{2}", "1.41", False),
    ("5\\sqrt{5}", "5 \\sqrt 5", True),
    ("2\\pi-4", "2 \\pi - 4", True),
    ("2\\pi-4", "-4+2\\pi", True),
    ("4\\pi", "4", False),
    ("(x+1)^2", "x^2+2x+1", True),
    ("5n+10", "5(n+2)", True),
    ("5n+10", "5n+2", False),
    ("4t", "4 t", True),
    ("4t", "4 \\cdot t", True),
    ("4t", "4", False),
    ("x^{2}", "x^2", True),
    ("-15+8i", "8i - 15", True),
    ("-2^{49}", "-2^{49}", True),
    ("1024", "2^{10}", True),
    ("(0,4)", "(0, 4)", True),
    ("(0,4)", "\\left( 0, 4 \\right)", True),
    ("(0,4)", "(4,0)", False),
    ("\\left( \\frac{5}{3}, 1 \\right)", "(5/3, 1)", True),
    ("\\{1,2\\}", "\\{2, 1\\}", True),
    ("\\{1,2\\}", "\\{1,3\\}", False),
    ("1,-2", "-2, 1", True),
    ("1,-2", "1", False),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}", True),
    ("[1,2)", "[1, 2)", True),
    ("[1,2)", "[1,2]", False),
    ("(-\\infty,3]\\cup[5,\\infty)", "(-\\infty, 3] \\cup [5, \\infty)", True),
    ("x \\in [-2,7]", "[-2,7]", True),
    ("x \\le 3", "x \\leq 3", True),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}", True),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}", False),
    ("\\$15,\\!000", "15000", True),
    ("\\$15,\\!000", "$15,000", True),
    ("15,000", "15", False),
    ("82.50", "82.5", True),
    ("50\\%", "50", True),
    ("50\\%", "50\\%", True),
    ("50\\%", "0.5", True),
    ("50\\%", "5\\%", False),
    ("132^\\circ", "132", True),
    ("132", "132^{\\circ}", True),
    ("132^\\circ", "132 degrees", True),
    ("21\\text{ units}", "21", True),
    ("382 \\text{ dollars}", "382", True),
    ("10\\text{ cm}^2", "10", True),
    ("21", "21 units", True),
    ("21", "21x", False),
    ("K=8", "8", True),
    ("n = 255", "n=255", True),
    ("8", "x=8", True),
    ("x=8", "y=8", False),
    ("7!", "5040", True),
    ("D, E", "E, D", True),
    ("\\text{(A)}", "A", True),
    ("\\text{(A)}", "(B)", False),
    ("\\text{Tuesday}", "Tuesday", True),
    ("\\text{Tuesday}", "tuesday.", True),
    ("\\text{east}", "seat", False),
    ("\\text{June 20}", "June 20", True),
    ("even", "odd", False),
    ("2516_8", "2516_{8}", True),
    ("42", "", False),
    ("42", "\\frac{", False),
    ("42", "}{", False),
    ("42", "\\begin{pmatrix}", False),
]

# Where in an output a formula is looked for.
LATEX_OUTPUTS = [
    ("5", "So $x = \\boxed{5}$.", True),
    ("5", "Not \\boxed{4} but \\boxed{5}, as 2 + 3 says.", True),
    ("\\frac{1}{2}", "Thus \\boxed{\\frac{1}{2}}", True),
    ("5", "Thus \\boxed 5.", True),
    ("5", "Thus \\fbox{5}.", True),
    ("5", "Thus \\boxed{4}.\n### 5", True),
    ("5", "### 4\nThus \\boxed{5}.", True),
    ("5", "Thus $\\boxed{5", False),
    ("5", "The answer is $5$.", True),
    ("5", "First 3.\n$5$\n", True),
    ("5", "First 5.\n$3$", False),
    ("5", "", False),
]

SENTENCES = [
    ("Tom is a lempus.", CHAIN + "Tom is a lempus.", True),
    ("Tom is a lempus.", CHAIN + "Tom is a lempus", True),
    ("Tom is a lempus.", CHAIN + "tom is a  lempus.", True),
    ("Tom is a lempus.", CHAIN + "Tom is a gorpus.", False),
    ("Tom is a lempus.", CHAIN + "Tom is not a lempus.", False),
    ("Tom is a lempus.", CHAIN, False),
    ("True", CHAIN + "True", True),
    ("True", CHAIN + "true.", True),
    ("True", CHAIN + "False", False),
]

TABLE = [
    *(("number", *row) for row in NUMBERS),
    *(("reference", *row) for row in REFERENCE),
    *(("latex", gold, CHAIN + output, right) for gold, output, right in LATEX),
    *(("latex", *row) for row in LATEX_OUTPUTS),
    *(("reference latex", gold, CHAIN + gold, True) for gold in ("\\frac{1}{2}", "(0,4)")),
    ("reference latex", "\\frac{1}{2}", CHAIN + "\\frac12", False),
    *(("words", *row) for row in SENTENCES),
]


@pytest.mark.parametrize(("task", "gold", "output", "right"), TABLE)
def test_scoring(task: str, gold: str, output: str, right: bool) -> None:
    assert TASKS[task].score(output, Example("", (), gold)).correct is right


def test_the_table_is_a_table() -> None:
    assert len(TABLE) >= 120
    assert len(set(TABLE)) == len(TABLE)


def test_what_was_read_is_told_in_one_spelling() -> None:
    read = {
        gsm8k.TASK.score(text, Example("", (), "18")).extracted for text in ("# 18.0", "# $18", "#18 eggs")
    }
    assert read == {"18"}
    verdict = math.TASK.score("### $\\dfrac12$", Example("", (), "\\frac{1}{2}"))
    assert verdict.extracted == verdict.gold == "\\frac{1}{2}"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_has_a_name_and_a_budget(task: Task) -> None:
    assert task.name and task.max_new_tokens in (64, 128, 512)
    assert isinstance(task, WordedTask)


def test_formulas_are_compared_in_any_thread() -> None:
    verdicts: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: verdicts.append(latex.equal(f"x+{n}", f"{n}+x")))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 4


def test_a_comparison_without_end_counts_as_different() -> None:
    checker = latex.Checker(seconds=1)
    assert not checker.equal("10^{10^{10^{10}}}", "2")
    assert checker.equal("x+1", "1+x")  # in a new process
    checker.close()


def test_an_interrupted_comparison_does_not_answer_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = latex.Checker()
    assert checker.equal("x+1", "1+x")
    process = checker._process
    assert process and process.stdout

    def interrupt() -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(process.stdout, "readline", interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            checker.equal("x+1", "1+x")
    assert not checker.equal("x+1", "x+2")
    checker.close()
