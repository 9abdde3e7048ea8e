"""Map the columns of tables to fields.

A column is mapped to a field if the user says so, if its heading is the field's name, or if its heading is in a list of
known headings.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vasevqa.errors import ConfigError
from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.text import nearest

IDS = ("vase_id", "vase", "id", "uuid")
IMAGES = ("images", "image")
TALKS = ("conversations", "messages", "query")
RIGHTS = ("licence", "rights_holder", "credit_line", "source_url")
BESIDE = ("attributes", "response", "history", "system")  # read only together with other fields
FIELDS = ("vase_id", "image", "images", *ATTRIBUTES, *RIGHTS, "conversations", "messages")
_KNOWN = frozenset((*IDS, *IMAGES, *TALKS, *BESIDE, *ATTRIBUTES, *RIGHTS))
LISTED = 40  # maximum number of headings in one message
MOST = 10_000  # maximum number of columns in a table

# Headings with one meaning in every catalogue (English, German, French, Italian, Spanish, Greek), in the form that
# `plain` returns. If two headings of a table mean the same field, the heading that comes first in this list is used.
SURE = {
    "vase_id": "vase number|vase no|bapd number|accession number|accession no|accession num|object number|objectnumber"
    "|object no|museum number|museum no|registration number|inventory number|inventory no|inv no|catalogue number"
    "|object id|objectid|inventarnummer|inventarnr|inv nr|invnr|katalognummer|gefass|numero d inventaire"
    "|no d inventaire|n inventaire|numero di inventario|n inventario|inventario"
    "|numero de inventario|vaso|αριθμος ευρετηριου|αρ ευρ"
    "|αριθμος|αγγειο",
    "image": "file name|filename|image file|image path|image name|img|photo|photograph|photo file|bild|bilddatei"
    "|dateiname|foto|fichier|nom du fichier|immagine|nome file|archivo|imagen|fotografia|εικονα|αρχειο|φωτογραφια",
    "fabric": "ware|gattung|keramikgattung|warenart|fabrique|fabbrica|produzione|produccion|εργαστηριο",
    "technique": "technik|dekortechnik|maltechnik|tecnica|τεχνικη",
    "shape": "shape name|vase shape|vessel shape|form|gefassform|vasenform|forme|forma|forma del vaso|σχημα",
    "provenance": "findspot|find spot|find place|fundort|lieu de decouverte|lieu de trouvaille"
    "|luogo di ritrovamento|luogo di rinvenimento|provenienza|procedencia|lugar de hallazgo|τοπος ευρεσης|προελευση",
    "date": "object date|dated|date text|production date|datierung|datation|datazione|cronologia|datacion|fecha"
    "|χρονολογηση|χρονολογια",
    "attribution": "attributed to|painter|maler|zuschreibung|zugeschrieben|peintre|attribue a|pittore|attribuzione"
    "|attribuito a|pintor|atribucion|atribuido a|ζωγραφος|αποδοση",
    "decoration": "dekor|dekoration|darstellung|decor|decorazione|decoracion|διακοσμηση|παρασταση",
    "caption": "beschreibung|description|descrizione|descripcion|περιγραφη|bildunterschrift|legende|didascalia",
    "licence": "license|lizenz|licenza|licencia|αδεια|rights|rights statement|rights and reproduction|nutzungsrechte"
    "|droits|diritti|derechos|is public domain",
    "rights_holder": "rightsholder|copyright|copyright holder|rechteinhaber|urheber|photographer|fotograf|photographe",
    "credit_line": "creditline|credit|bildnachweis|credits",
    "source_url": "source|url|link|link resource|object url|object link|uri|quelle|permalink",
}
# Headings that often mean a field. These headings are only suggested to the user.
UNSURE = {
    "vase_id": "number|nummer|nr|no|numero|inventory|key|identifier|objekt|object|ref|big number|museum id",
    "image": "picture|pictures|file|datei|path|pfad|primary image|primaryimage|primaryimageurl|image url",
    "fabric": "culture|production place|kultur|kulturkreis|cultura|region|place of production|civilisation",
    "technique": "medium|material|materials|material technique|technique material|techniques",
    "shape": "object name|object type|objectname|title|titel|titre|titolo|typ|type|classification|tipo|objektart",
    "provenance": "excavation|place|ort|origin|herkunft|provenienz|find place note|place excavated|luogo|lieu|lugar",
    "date": "period|epoch|epoche|periode|periodo|century|jahrhundert|object begin date|production period|time",
    "attribution": "artist display name|artist|artist maker|maker|producer name|people|kunstler|artiste|artista|autore",
    "decoration": "subjects|subject|scene|iconography|ikonographie|motif|motiv|soggetto|sujet|tema",
    "caption": "text|label text|curators comments|comment|notes|kommentar",
}


def key_of(name: object) -> str:
    """Return a heading in the form of a field name. For example, `Vase ID` becomes `vase_id`."""
    return "_".join(str(name).lower().replace("_", " ").split())


def plain(heading: object) -> str:
    """Return a heading in a form for comparisons.

    The result is in lower case. Accents, punctuation and text in brackets (such as a unit) are removed.
    """
    text = re.sub(r"[(\[].*?[)\]]", " ", str(heading)[:200])
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)  # splits names such as objectNumber
    letters = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def _table(headings: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    return {
        heading: (rank, name) for name, text in headings.items() for rank, heading in enumerate(text.split("|"), 10)
    }


_SURE, _UNSURE = _table(SURE), _table(UNSURE)


def read_columns(given: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """Return a mapping from field to heading.

    `given` is a mapping, or texts such as `shape="Object Name",date=Dated`. Raise ConfigError if `given` is invalid.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else [pair for text in given for pair in _pairs(text)]
    headings: dict[str, str] = {}
    for written, heading in pairs:
        name = key_of(written)
        if name not in FIELDS:
            raise ConfigError(f"columns: there is no field '{name}'.{nearest(name, FIELDS)}")
        if not heading.strip():
            raise ConfigError(f'columns: the field {name} has no heading; write `{name}="Heading of the column"`.')
        if headings.setdefault(name, heading.strip()) != heading.strip():
            raise ConfigError(f"columns: {name} is given twice, as '{headings[name]}' and '{heading}'; keep one.")
    return headings


_PAIR = re.compile(r"""\s*([^=,"']+?)\s*=\s*(?:"((?:[^"]|"")*)"|'([^']*)'|([^,]*?))\s*(?:,|$)""")


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise ConfigError(
                f"columns: '{text[at:]}' does not have the form `field=heading`; write a text such as"
                ' `shape="Object Name",date="Object Date"`.'
            )
        heading = match[2].replace('""', '"') if match[2] is not None else match[3] or match[4] or ""
        yield match[1], heading
        at = match.end()


@dataclass
class Columns:
    """The mapping from headings to fields.

    `given` maps fields to the headings that the user named. `used` maps (heading, field) to the number of rows in which
    the heading's cell was used. `unused` maps each heading to the number of rows in which its cell was not used.
    """

    given: Mapping[str, str] = field(default_factory=dict)  # field -> heading
    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    _ranks: dict[str, tuple[int, str]] = field(default_factory=dict)

    def rank(self, heading: str) -> tuple[int, str]:
        """Return the rank of a heading and the heading's field. The field of an unknown heading is "".

        The lower the rank, the more certain the field. Rank 0 means that the user named the heading.
        """
        ranked = self._ranks.get(heading)
        if ranked is None:
            ranked = self._ranks[heading] = self._rank(heading)
        return ranked

    def _rank(self, heading: str) -> tuple[int, str]:
        for name, told in self.given.items():
            if told == heading or plain(told) == plain(heading):
                return 0, name
        key = key_of(heading)
        if key in _KNOWN:
            return 1, key
        return _SURE.get(plain(heading), (99, ""))

    def fields(self, headings: Iterable[str]) -> set[str]:
        """Return the fields of the headings. The result holds "" if a heading is unknown."""
        names = {self.rank(heading)[1] for heading in headings}
        return names | ({"caption"} if _image_folder(headings) else set())

    def rename(self, entry: Mapping[str, object]) -> dict[str, object]:
        """Return a row with fields as keys, and count the used and unused headings.

        If several headings mean one field, empty cells are ignored, and the cell of the most certain heading is used.
        """
        chosen: dict[str, tuple[int, str]] = {}
        second = None
        image_folder = _image_folder(entry)
        for heading in entry:
            rank, name = self.rank(heading)
            if image_folder and heading.lower() == "text":
                rank, name = 2, "caption"
            if plain(heading) == "sub technique" and rank:
                second = heading
            elif not name:
                self.unused[heading] += 1
            elif entry[heading] in (None, "") and name in chosen:
                continue
            elif name in chosen and entry[chosen[name][1]] not in (None, "") and chosen[name][0] <= rank:
                self.unused[heading] += 1
            else:
                if name in chosen and entry[chosen[name][1]] not in (None, ""):
                    self.unused[chosen[name][1]] += 1
                chosen[name] = (rank, heading)
        fields = {name: entry[heading] for name, (_, heading) in chosen.items()}
        for name, (_, heading) in chosen.items():
            self.used[heading, name] += 1
        if second is not None:
            parts = [part for part in (fields.get("technique"), entry[second]) if part not in (None, "")]
            fields["technique"] = ", ".join(str(part) for part in parts) or None
            self.used[second, "technique"] += 1
        return fields

    def check(self, headings: Iterable[str]) -> None:
        """Check that the headings include a vase id or an image, and an attribute or a conversation.

        Otherwise raise ValueError. The message suggests how to map the headings to fields.
        """
        several = list(headings)
        fields = self.fields(several)
        if not fields & {*IDS, *IMAGES}:
            missing = f"{', '.join(IDS)} or images"
        elif not fields & {*ATTRIBUTES, *TALKS, "attributes"}:
            missing = f"{', '.join(ATTRIBUTES)} or conversations"
        else:
            return
        raise ValueError(
            f"its first line or row names no column for {missing}, but only {_several(several) or 'empty cells'};"
            f" {self.advice(several)}"
        )

    def advice(self, headings: Iterable[str]) -> str:
        """Return a text that suggests a value of --columns for the headings. If none fits, it shows an example."""
        suggestions = self.candidates(headings)
        if not suggestions:
            return 'name the right columns with --columns, such as vase_id="Heading",shape="Heading"'
        return "try --columns " + ",".join(f'{name}="{found[0]}"' for name, found in suggestions.items())

    def candidates(self, headings: Iterable[str]) -> dict[str, list[str]]:
        """Return a mapping from each missing field to the headings that may mean this field, the likeliest first.

        A field is missing if no heading is mapped to it. Fields for which no heading seems likely are left out.
        """
        several = list(headings)
        taken = self.fields(several)
        found: dict[str, list[tuple[int, str]]] = {}
        for heading in several:
            rank, name = _UNSURE.get(plain(heading), (99, ""))
            if name and name not in taken:
                found.setdefault(name, []).append((rank, heading))
        return {name: [heading for _, heading in sorted(some, key=lambda one: one[0])] for name, some in found.items()}

    def check_given(self) -> None:
        """Raise ConfigError if the user named a heading that no table has."""
        headings = [heading for heading, _ in self.used] + list(self.unused)
        for name, heading in self.given.items():
            if headings and (0, name) not in self._ranks.values():
                raise ConfigError(
                    f"columns: no table has the column '{heading}', which was given for the field {name}."
                    f"{nearest(heading, headings[:LISTED])}"
                )

    def notes(self) -> list[str]:
        """Return notes for the user about unused headings and about headings that are not spelled like their field."""
        notes = []
        mapped = [f"'{heading}' is {name}" for heading, name in self.used if key_of(heading) != name]
        if mapped:
            notes.append(f"columns by their headings: {', '.join(mapped[:LISTED])}")
        idle = [heading for heading in self.unused if heading.strip()]
        if idle:
            advice = self.advice([*idle, *(heading for heading, _ in self.used)])
            notes.append(f"columns not used: {_several(idle)}" + (f"; {advice}" if advice.startswith("try") else ""))
        return notes


def _image_folder(headings: Iterable[str]) -> bool:
    """Return whether a row has the format of Hugging Face's ImageFolder.

    In this format, `text` is the caption of the image `file_name`.
    """
    keys = {heading.lower() for heading in headings}
    return "file_name" in keys and "text" in keys and "caption" not in keys


def _several(headings: list[str]) -> str:
    more = f" and {len(headings) - LISTED} more" if len(headings) > LISTED else ""
    return ", ".join(f"'{heading[:60]}'" for heading in headings[:LISTED]) + more
