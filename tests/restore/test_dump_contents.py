"""Entries of a dump: told apart by what pg_restore lists, whatever their names and texts are."""

from opsd.restore.dump_contents import Name, choose, parse, parse_path

LISTED = """;
; Selected TOC Entries:
;
6; 2615 16385 SCHEMA - s postgres
10; 1259 100 TABLE public a Ann
11; 1259 101 TABLE public a b Ann
12; 1259 102 SEQUENCE public a_seq Ann
20; 0 100 TABLE DATA public a Ann
21; 0 101 TABLE DATA public a b Ann
22; 0 0 SEQUENCE SET public a_seq Ann
30; 1259 103 INDEX public i Ann
31; 0 0 COMMENT public INDEX i Ann
32; 1259 104 INDEX public j Ann
"""


def header(number: int, name: str, kind: str, needs: str = "") -> str:
    needed = f"-- Dependencies: {needs}\n" if needs else ""
    return f"--\n-- TOC entry {number} (class 1 OID 2)\n{needed}-- Name: {name}; Type: {kind}; Schema: public; Owner: Ann\n--\n\n"


TEXT = (
    header(10, "a", "TABLE")
    + "CREATE TABLE public.a (\n    id integer\n);\n\n\n"
    + header(11, "a b", "TABLE")
    + 'CREATE TABLE public."a b" ();\n\n\n'
    + header(12, "a_seq", "SEQUENCE", "10")
    + "ALTER TABLE public.a ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME public.a_seq\n);\n\n"
    + header(30, "i", "INDEX")
    + "CREATE UNIQUE INDEX i ON ONLY public.a USING btree (id);\n\n\n"
    + header(31, "INDEX i", "COMMENT", "30")
    + "COMMENT ON INDEX public.i IS 'first\n"
    + header(32, "j", "INDEX")
    + "CREATE INDEX j ON public.a USING btree (id);';\n\n\n"
    + header(32, "j", "INDEX")
    + 'CREATE INDEX j ON public."a b" USING btree ("x ON public.a USING");\n\n\n'
)


def test_a_table_is_chosen_with_what_belongs_to_it_and_not_what_is_named_alike() -> None:
    choice = choose({"d": parse(LISTED, TEXT)}, [Name("public", "a")])
    assert choice.relations == {Name("public", "a"), Name("public", "a_seq")}
    assert [item.id for item in choice.rows["d"]] == [10, 20]
    assert [item.id for item in choice.rest["d"]] == [12, 22, 30, 31]
    other = choose({"d": parse(LISTED, TEXT)}, [Name("public", "a b")])
    assert ([item.id for item in other.rows["d"]], [item.id for item in other.rest["d"]]) == ([11, 21], [32])


def test_a_dump_of_rows_alone_has_entries_without_kind() -> None:
    assert [item.kind for item in parse("20; 0 100 TABLE DATA public a Ann\n", "-- nothing\n")] == [""]


def test_names_are_read_as_sql_writes_them() -> None:
    assert parse_path('public."a ""b"". c"') == Name("public", 'a "b". c')
    assert parse_path("orders") is None
