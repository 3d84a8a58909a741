"""No password leaves: not in a message, not in a file."""

import pytest

from raysearch.store.secrets import without_credentials, without_password

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("given", "shown", "published"),
    [
        (f"http://ada:{SECRET}@127.0.0.1:9", "http://ada:***@127.0.0.1:9", "http://127.0.0.1:9"),
        (f"https://ada:{SECRET}%2F%40x@mlflow.org/x", "https://ada:***@mlflow.org/x", "https://mlflow.org/x"),
        (f"https://:{SECRET}@mlflow.org", "https://:***@mlflow.org", "https://mlflow.org"),
        (f"https://ada@corp.org:{SECRET}@mlflow.org", "https://ada@corp.org:***@mlflow.org", "https://mlflow.org"),
        (f"postgresql+psycopg2://me:p@{SECRET}@db:5432/r", "postgresql+psycopg2://me:***@db:5432/r", "postgresql+psycopg2://db:5432/r"),
        (f"mysql://me:12/{SECRET}@db/r", "mysql://me:***@db/r", "mysql://db/r"),
        (f"http://me:4#{SECRET}x@h:5000/", "http://me:***@h:5000/", "http://h:5000/"),
        (f"HTTPS://me:{SECRET}@h", "HTTPS://me:***@h", "HTTPS://h"),
        (f"search.py digits --tracking-uri 'http://me:{SECRET}@h' --x ftp://you:{SECRET}@i/j --output a@b",
         "search.py digits --tracking-uri 'http://me:***@h' --x ftp://you:***@i/j --output a@b",
         "search.py digits --tracking-uri 'http://h' --x ftp://i/j --output a@b"),
        (f"http://u:{SECRET}@h,http://v:{SECRET}@i", "http://u:***@h,http://v:***@i", "http://h,http://i"),
        (f"postgresql:///r?user=me&password={SECRET}&connect_timeout=3", *2 * ["postgresql:///r?user=me&password=***&connect_timeout=3"]),
        (f"https://h/x?access_token={SECRET}#part", *2 * ["https://h/x?access_token=***#part"]),
        (f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{SECRET}", *2 * ["mssql+pyodbc:///?odbc_connect=***"]),
        (f"https://{SECRET}AbCdEf0123456789@mlflow.org/x", "https://***@mlflow.org/x", "https://mlflow.org/x"),
        (f"s3://AKIA0:{SECRET}@bucket/x", "s3://AKIA0:***@bucket/x", "s3://bucket/x"),
        (f"https://h/x?aws_access_key_id={SECRET}&X-Amz-Signature={SECRET}", *2 * ["https://h/x?aws_access_key_id=***&X-Amz-Signature=***"]),
        (f"s3://b/x?access_key={SECRET}&secret_key={SECRET}&region=x", *2 * ["s3://b/x?access_key=***&secret_key=***&region=x"]),
        ("https://ada@mlflow.org/x", "https://ada@mlflow.org/x", "https://mlflow.org/x"),
    ],
)  # fmt: skip
def test_secrets_go_and_all_else_stays(given: str, shown: str, published: str) -> None:
    assert (without_password(given), without_credentials(given)) == (shown, published)
    for text in (shown, published):
        assert SECRET not in text
        assert without_password(text) == text  # to clean twice changes nothing


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:5000 --output a@b",
        "https://mlflow.example:5000/experiments/me@corp.org",
        "http://[fd00::1]:5000/me@corp.org",
        "sqlite:////home/me/a:b@c/mlflow.db",
        "s3://bucket/a:b@c",
        "search.py digits --data photos//me:x@home --search.population 8",
        "https://mlflow.org/x?tokens_seen=3&order=score",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert without_password(text) == without_credentials(text) == text
