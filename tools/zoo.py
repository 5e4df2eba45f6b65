"""The model zoo: list its models, find some of them, check all of them.

python tools/zoo.py
python tools/zoo.py waymo dsvt
python tools/zoo.py --check
"""

from __future__ import annotations

import argparse

from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from sparse3d.zoo import Model, configs_folder, models


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="list models that have all of these in their name, paper or data set")
    parser.add_argument(
        "--check", action="store_true", help="check configs, metafiles and converters; status 1: problems"
    )
    return parser.parse_args()


def main() -> None:
    """List, or check."""
    arguments = parse_arguments()
    if arguments.check:
        check()
        return
    found = [model for model in models() if all(word.lower() in searched(model) for word in arguments.words)]
    if not found:
        raise SystemExit(f"zoo: no model has {' and '.join(arguments.words)}; without words all are listed")
    table = Table("model", "paper", "parameters", "published (by the authors)")
    for model in found:
        table.add_row(model.name, model.collection, str(model.metadata.get("Parameters", "")), model.figures)
    Console().print(table)


def searched(model: Model) -> str:
    """Return the text in which words are looked for."""
    return f"{model.name} {model.collection} {model.metadata.get('Training Data', '')} {model.figures}".lower()


def check() -> None:
    """Print what is wrong with the zoo."""
    from sparse3d.zoo_checks import check_all  # it builds models, which takes PyTorch

    MMLogger.get_instance("zoo", log_level="ERROR")
    problems = list(check_all(configs_folder()))
    print("\n".join([*problems, f"{len(models())} models, {len(problems)} problems"]))
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
