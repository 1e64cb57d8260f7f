"""Tokens with a valid signature, in forms that two parsers could read in two ways.

Each name stands for a token and the reason for its refusal. Wherever possible the signature is
valid: only the form is wrong.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

from tests.support.tokenforgeries import BODY, HEAD, SIGNATURE
from tests.support.tokenmaking import GOOD, PAYLOAD, b64, signed, signed_as_is

_HEADER = b'{"alg":"EdDSA","kid":"EdDSA"}'
_TOKEN = signed(GOOD)
_WHOLE = {"payload": BODY, "protected": HEAD, "signature": SIGNATURE}

SHAPES = {
    "empty": ("", "malformed"),
    "one part": ("x", "malformed"),
    "two parts": (f"{HEAD}.{BODY}", "malformed"),
    "four parts": (f"{_TOKEN}.x", "malformed"),
    "four parts, one empty": (f"{_TOKEN}.", "malformed"),
    "dots only": ("..", "malformed"),
    "empty header": (f".{BODY}.{SIGNATURE}", "malformed"),
    "empty payload": (f"{HEAD}..{SIGNATURE}", "malformed"),
    "empty signature": (f"{HEAD}.{BODY}.", "malformed"),
    "two tokens": (f"{_TOKEN},{_TOKEN}", "malformed"),
    "two tokens and a blank": (f"{_TOKEN} {_TOKEN}", "malformed"),
    "bearer": (f"Bearer {_TOKEN}", "malformed"),
    "in quotes": (f'"{_TOKEN}"', "malformed"),
    "json serialization": (json.dumps(_WHOLE), "malformed"),
    "json serialization, general": (
        json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}),
        "malformed"),
    "json serialization, header not protected": (
        json.dumps({**_WHOLE, "header": {"kid": "EdDSA"}}), "malformed"),
    # CVE-2022-39227: one parser sees three parts, another a JSON object.
    "both serializations at once": (
        json.dumps({f" {HEAD}.{BODY}.": "", **_WHOLE}), "malformed"),
    "too long": (".".join((HEAD, b64(b" " * 9000), SIGNATURE)), "malformed"),
    "all dots": ("." * 8000, "malformed"),
    "not ascii": ("é.é.é", "malformed"),
    "a lone surrogate": ("\ud800.a.a", "malformed"),
}

ENCODINGS = {
    "nul": (f"{_TOKEN}\0", "malformed"),
    "white space": (f"{_TOKEN}\n", "malformed"),
    "leading space": (f" {_TOKEN}", "malformed"),
    "line end inside": (f"{HEAD}.{BODY[:8]}\r\n{BODY[8:]}.{SIGNATURE}", "malformed"),
    "padding": (f"{HEAD}=.{BODY}.{SIGNATURE}", "malformed"),
    "padded signature": (f"{_TOKEN}==", "malformed"),
    "padding percent-encoded": (f"{_TOKEN}%3d%3d", "malformed"),
    "standard alphabet": (".".join((HEAD, BODY, "+/" * 43)), "malformed"),
    "stray bits": (f"{HEAD}.{BODY}.{SIGNATURE[:-1]}B", "malformed"),
    "a fifth of a byte": (f"{HEAD}.{BODY}.{SIGNATURE[:-1]}", "malformed"),
    "wide digits": (f"{HEAD}.{BODY}." + "\uff11" * 86, "malformed"),
    "a kelvin sign": (f"{HEAD}.{BODY}.\u212a{SIGNATURE[1:]}", "malformed"),
    "what is not seen": (f"{HEAD}.{BODY}.{SIGNATURE}\u200b", "malformed"),
    "hexadecimal": (f"{HEAD}.{BODY}.{'00' * 64}", "signature"),
    "encoded twice": (signed_as_is(b64(_HEADER), PAYLOAD), "malformed"),
}

# Changes to a JSON object, header or payload, that a strict parser rejects.
_SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "with a bom": lambda text: b"\xef\xbb\xbf" + text,
    "in utf-16": lambda text: text.decode().encode("utf-16"),
    "in utf-16, without a bom": lambda text: text.decode().encode("utf-16-le"),
    "in utf-32": lambda text: text.decode().encode("utf-32-le"),
    "in latin-1": lambda text: text[:-1] + b',"x":"\xe9"}',
    "overlong utf-8": lambda text: text[:-1] + b',"x":"\xc0\xaf"}',
    "surrogates in utf-8": lambda text: text[:-1] + b',"x":"\xed\xa0\x80"}',
    "beyond unicode": lambda text: text[:-1] + b',"x":"\xf4\x90\x80\x80"}',
    "compressed": zlib.compress,
    "half": lambda text: text[:-1],
    "and more": lambda text: text + b"{}",
    "twice": lambda text: text + text,
    "and a nul": lambda text: text + b"\0",
    "with a comment": lambda text: text + b"//",
    "with a comment inside": lambda text: b"{/**/" + text[1:],
    "trailing comma": lambda text: text[:-1] + b",}",
    "leading comma": lambda text: b"{," + text[1:],
    "single quotes": lambda text: text.replace(b'"', b"'"),
    "a name without quotes": lambda text: text[:-1] + b",x:1}",
    "a space that is none": lambda text: b"\xc2\xa0" + text,
    "a form feed": lambda text: b"\x0c" + text,
    "a control character": lambda text: text[:-1] + b',"x":"\x01"}',
    "a line end in a text": lambda text: text[:-1] + b',"x":"\n"}',
    "an odd escape": lambda text: text[:-1] + b',"x":"\\x41"}',
    "an escaped quote too much": lambda text: text[:-1] + b',"x":"\\"}',
    "half an escape": lambda text: text[:-1] + b',"x":"\\u00"}',
    "nan": lambda text: text[:-1] + b',"x":NaN}',
    "infinity": lambda text: text[:-1] + b',"x":-Infinity}',
    "a number beyond all": lambda text: text[:-1] + b',"x":1e999}',
    "a leading zero": lambda text: text[:-1] + b',"x":01}',
    "a plus": lambda text: text[:-1] + b',"x":+1}',
    "a bare point": lambda text: text[:-1] + b',"x":.5}',
    "a point at the end": lambda text: text[:-1] + b',"x":1.}',
    "hexadecimal": lambda text: text[:-1] + b',"x":0x1F}',
    "underscores": lambda text: text[:-1] + b',"x":1_000}',
    "wide digits": lambda text: text[:-1] + ',"x":\uff11}'.encode(),
    "a long number": lambda text: text[:-1] + b',"x":' + b"9" * 3000 + b"}",
    "python's none": lambda text: text[:-1] + b',"x":None}',
    "duplicate": lambda text: text[:-1] + b"," + text[1:],
    "duplicate, the same": lambda text: text[:-1] + b',"x":1,"x":1}',
    "duplicate, escaped": lambda text: text[:-1] + b',"x":1,"\\u0078":2}',
    "duplicate, inside": lambda text: text[:-1] + b',"x":[{"y":{"a":1,"a":2}}]}',
    "deep": lambda text: text[:-1] + b',"x":' + b"[" * 1400 + b"]" * 1400 + b"}",
    "deep, in objects": lambda text: text[:-1] + b',"x":' + b'{"a":' * 480 + b"1" + b"}" * 481,
    "just too deep": lambda text: text[:-1] + b',"x":' + b"[" * 16 + b"]" * 16 + b"}",
    "never shut": lambda text: b"[" * 3000,
    "a list": lambda text: b"[" + text + b"]",
    "an empty list": lambda text: b"[]",
    "a text": lambda text: json.dumps(text.decode()).encode(),
    "null": lambda text: b"null",
    "a number": lambda text: b"1",
    "a blank": lambda text: b" ",
}

OBJECTS = {
    **{f"header {how}": (signed_as_is(spoil(_HEADER), PAYLOAD), "malformed")
       for how, spoil in _SPOILT.items()},
    **{f"payload {how}": (signed(spoil(PAYLOAD)), "claims") for how, spoil in _SPOILT.items()},
    "header all quotes": (signed_as_is('{"a":"' + '\\"' * 2900, b"x"), "malformed"),
    "header duplicate kid": (
        signed_as_is('{"alg":"EdDSA","kid":"x","kid":"EdDSA"}', PAYLOAD), "malformed"),
    "header duplicate alg": (
        signed_as_is('{"alg":"none","alg":"EdDSA","kid":"EdDSA"}', PAYLOAD), "malformed"),
    "header empty": (signed_as_is("{}", PAYLOAD), "algorithm"),
    "payload empty": (signed(b"{}"), "issuer"),
    "payload a token": (signed(_TOKEN.encode()), "claims"),
    "duplicate claim": (signed(PAYLOAD[:-1] + b',"exp":9999999999}'), "claims"),
    "duplicate claim, escaped": (signed(PAYLOAD[:-1] + b',"s\\u0075b":"ndt"}'), "claims"),
    "exp infinite": (signed(PAYLOAD.replace(b"4000000060.0", b"1e999")), "claims"),
    "exp hexadecimal": (signed(PAYLOAD.replace(b"4000000060.0", b"0xFFFFFFFF")), "claims"),
    "exp in quotes": (signed(PAYLOAD.replace(b"4000000060.0", b'"4000000060"')), "claims"),
    "exp a date": (signed({**GOOD, "exp": "2099-01-01T00:00:00Z"}), "claims"),
    "exp in milliseconds, and late": (signed({**GOOD, "exp": 4e15}), "claims"),
    "exp in capitals": (
        signed(PAYLOAD.replace(b'"exp"', b'"EXP"').replace(b"locate", b"x")), "issuer"),
    "claims under a name": (signed({"claims": GOOD}), "issuer"),
    "iss with a nul": (signed({**GOOD, "iss": "locate\0"}), "issuer"),
    "iss with a blank": (signed({**GOOD, "iss": " locate"}), "issuer"),
    "iss in wide letters": (signed({**GOOD, "iss": "\uff4cocate"}), "issuer"),
    "iss in other letters": (signed({**GOOD, "iss": "l\u043ecate"}), "issuer"),
    "iss a url of it": (signed({**GOOD, "iss": "https://locate"}), "issuer"),
    "aud with a wild card": (signed({**GOOD, "aud": "*"}), "audience"),
    "aud with a pattern": (signed({**GOOD, "aud": "mlab."}), "audience"),
    "aud and more": (signed({**GOOD, "aud": "mlab1.evil.example"}), "audience"),
    "aud with a point": (signed({**GOOD, "aud": "mlab1."}), "audience"),
    "aud in capitals": (signed({**GOOD, "aud": "MLAB1"}), "audience"),
    "aud in a list in a text": (signed({**GOOD, "aud": '["mlab1"]'}), "audience"),
    "aud joined": (signed({**GOOD, "aud": "mlab0 mlab1"}), "audience"),
    "aud half a character": (signed({**GOOD, "aud": ["mlab1", "\ud800"]}), "claims"),
}

WRITINGS = {**SHAPES, **ENCODINGS, **OBJECTS}
