"""Makes `crates/motherlode/src/text/analyse/thai.txt`: the Thai words that Java's word iterator knows.

    python3 -m venv oracle && . oracle/bin/activate && pip install jpype1==1.7.1
    pip download --no-deps pythainlp==5.4.0 && unzip pythainlp-5.4.0-*.whl pythainlp/corpus/words_th.txt
    python tests/golden/thai_words.py --words pythainlp/corpus/words_th.txt

Needs Java 17 (Debian `openjdk-17-jre-headless`). Java is asked about every word of PyThaiNLP's list (CC0), and about every
piece into which it splits one: what stays whole between known words is known.
"""

import argparse
import pathlib
import re

import jpype

THAI = re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e]+")
NEIGHBOURS = ["ประเทศ", "หนังสือ", "และ", "ของ", "เป็น", "โรงเรียน", "อย่าง"]
TARGET = pathlib.Path(__file__).resolve().parents[2] / "crates/motherlode/src/text/analyse/thai.txt"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--words", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    jpype.startJVM()
    iterator_class = jpype.JClass("java.text.BreakIterator")
    iterator = iterator_class.getWordInstance(jpype.JClass("java.util.Locale")("th"))

    def split(text):
        iterator.setText(text)
        start, pieces = iterator.first(), []
        while (end := iterator.next()) != iterator_class.DONE:
            pieces.append(text[start:end])
            start = end
        return pieces

    words = {word.strip() for word in arguments.words.read_text(encoding="utf-8").splitlines()}
    words = {word for word in words if THAI.fullmatch(word)}
    pieces = {piece for word in words for piece in split(word)}
    is_known = lambda word: any(split(beside + word + beside) == [beside, word, beside] for beside in NEIGHBOURS)
    known = sorted(word for word in words | pieces if is_known(word))
    TARGET.write_text("\n".join(known) + "\n", encoding="utf-8")
    print(f"{len(known)} of {len(words)} words and {len(pieces)} pieces are known")


if __name__ == "__main__":
    main()
