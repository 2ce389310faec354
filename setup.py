"""What pyproject.toml cannot say: a description for index pages, where pictures and links into the repository break."""

import re
from pathlib import Path

from setuptools import setup

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
PICTURES = re.compile(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*")
LINKS = re.compile(r"\[([^]]*)\]\((?!https?:)[^)]*\)")

setup(
    long_description=LINKS.sub(r"\1", PICTURES.sub("", README)),
    long_description_content_type="text/markdown",
)
