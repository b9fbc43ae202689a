"""A few inputs for each target to start from."""

from __future__ import annotations

SEEDS = {
    "smtp_server": [b"\x05DATA\r\nx\r\n..\r\n.\r\nNOOP\r\n", b"\x01BDAT 5\r\nab\r\nc", b"\x03DATA\r\n\n.\n\r.\r\r\n.\r\n" * 3],
    "relay": [b"\x05x\r\n.\r\nMAIL\n.\n\r.\r.\r\n\n.\r\n.", b"\x03" + b"a" * 39 + b"\r\n.\r.\n"],
    "smtp_reply": [b"\x01220-x\r\n220 y\r\n", b"\x02250 \r\n\xff\r\n25\r\n"],
    "address": [b"<a@b> SIZE=1", b'<"a b\\"c"@d>', b"<@a,@b:c@d>", b"<>"],
    "header": [b"To: a, b (c (d)) <e@f>,\r\n g:h;\r\nSubject :x\r\n\r\nbody"],
    "mime": [b"multipart/x; boundary=b\n\x03--b\r\nContent-Type: message/rfc822\r\n\r\nX: y\r\n\r\n--b--\r\nz"],
    "main_cf": [b"a = ${b?{c}:{d}}\nb = ${{$c}=={x}?y:z}\n c\n#d\n"],
    "master_cf": [b"smtp inet n - n - - smtpd -o {a = b}\nx unix - n n - - pipe user=a argv=/b ${recipient}\n"],
    "dns": [(b"\x00\x01\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04abcd")],
    "spool": [b"\xe5TF1" + b"\0" * 60],
    "sasl": [bytes([n]) + b"n,,n=joe,r=abc\xffc=biws,r=abcd,p=eHh4\xff" for n in range(7)],
    "xclient": [b"NAME=a.test ADDR=127.0.0.1 PROTO=ESMTP", b"ADDR=IPV6:::1 NAME=[UNAVAILABLE] HELO=a+20b"],
    "tls_policy": [b"secure match=nexthop:hostname protocols=!SSLv2 ciphers=high", b"fingerprint match=aa:bb|cc"],
    "ldap": [b"0\x0c\x02\x01\x01a\x07\n\x01\x00\x04\x00\x04\x00", b"(&(a=b*c)(|(!(x>=1))(y~=z)))", b"ldap://h:1/dc=x?a,b?sub?(c=d)"],
    "rules": [b"/^a(b)$/i REJECT $1\nif !/x/\nendif\n"],
}  # fmt: skip
