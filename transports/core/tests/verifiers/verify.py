"""Parses mails with Python's `email`, or verifies their DKIM signatures with dkimpy.

Reads one JSON object a line from the standard input, and prints one for each. The signatures are verified if "dns", a
map of names to TXT records, is not null. The parser has the policy `default`.
"""

import base64
import email
import email.header
import email.policy
import email.utils
import json
import sys


def utf8(text):
    """Decodes UTF-8 in a header (RFC 6532), whose octets the parser returns as single characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8")


def mailboxes(message, name):
    header = message[name]
    return [[utf8(m.display_name), utf8(m.addr_spec)] for m in header.addresses] if header else []


def names(raw, name):
    """Returns the display names, read with the older parser.

    Up to Python 3.12, the policy's parser keeps the white space between encoded words (RFC 2047 section 6.2 drops it).
    """
    lines = raw.get_all(name, [])
    decoded = email.utils.getaddresses([str(line).replace("\r", "").replace("\n", "") for line in lines])
    return [str(email.header.make_header(email.header.decode_header(text))) for text, _ in decoded]


def unfolded(raw, name):
    return raw[name] and raw[name].replace("\r\n", "").replace("\n", "")


def part(message):
    kind = message.get_content_type()
    disposition = message["Content-Disposition"]
    result = {
        "type": kind,
        "encoding": message.get("Content-Transfer-Encoding"),
        # get_filename() would strip spaces around it.
        "file_name": disposition.params.get("filename") if disposition else None,
        "disposition": message.get_content_disposition(),
        "content_id": message.get("Content-ID"),
        "defects": [type(defect).__name__ for defect in message.defects],
    }
    if message.get_content_maintype() == "message":
        inner = message.get_payload(0)
        result["subject"] = inner["Subject"]
        result["content"] = base64.b64encode(inner.as_bytes()).decode()
    elif kind in ("text/plain", "text/html") and message.get_filename() is None:
        result["text"] = message.get_content()
    else:
        result["content"] = base64.b64encode(message.get_payload(decode=True)).decode()
    return result


def leaves(message):
    """Yields the leaf parts in order. An attached message is one leaf, even if it is a multipart."""
    if message.get_content_maintype() == "multipart" and message.get_content_disposition() is None:
        for inner in message.get_payload():
            yield from leaves(inner)
    else:
        yield message


def read(octets):
    message = email.message_from_bytes(octets, policy=email.policy.default)
    raw = email.message_from_bytes(octets, policy=email.policy.compat32)
    fields = ("From", "Sender", "Reply-To", "To", "Cc")
    return {
        "subject": message["Subject"],
        "mailboxes": {name: mailboxes(message, name) for name in fields},
        "names": {name: names(raw, name) for name in fields},
        "custom": message.get_all("X-Value", []),
        # These fields hold no text, so they have no encoded words.
        "references": unfolded(raw, "References"),
        "unsubscribe": unfolded(raw, "List-Unsubscribe"),
        "defects": [type(defect).__name__ for defect in message.defects],
        "parts": [part(leaf) for leaf in leaves(message)],
    }


def signatures(octets, dns):
    import dkim

    answers = {name.encode() + b".": text.encode() for name, text in dns.items()}
    count = email.message_from_bytes(octets).get_all("DKIM-Signature", [])
    result = []
    for index in range(len(count)):
        try:
            verified = dkim.DKIM(octets).verify(index, dnsfunc=lambda name, timeout=5: answers.get(name))
            result.append("pass" if verified else "fail")
        except dkim.DKIMException as error:
            result.append(f"{type(error).__name__}: {error}")
    return result


for line in sys.stdin:
    request = json.loads(line)
    octets = base64.b64decode(request["mail"])
    answer = read(octets) if request["dns"] is None else {"dkim": signatures(octets, request["dns"])}
    print(json.dumps(answer), flush=True)
