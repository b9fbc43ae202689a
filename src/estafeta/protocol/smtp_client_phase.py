"""The places of an SMTP client conversation: their time limits and the words of the log.

Source: man 5 postconf (smtp_*_timeout, lmtp_*_timeout); texts as observed from smtp(8).
"""

from __future__ import annotations

from enum import Enum

from estafeta.protocol.smtp_reply import SmtpReply


class Phase(Enum):
    """What the client waits for. Values: time limit parameter without its prefix, "while ...", "in reply to ..."."""

    GREETING = ("helo_timeout", "receiving the initial server greeting", "initial server greeting")
    EHLO = ("helo_timeout", "performing the EHLO handshake", "EHLO command")
    HELO = ("helo_timeout", "performing the HELO handshake", "HELO command")
    LHLO = ("lhlo_timeout", "performing the LHLO handshake", "LHLO command")
    STARTTLS = ("starttls_timeout", "performing the STARTTLS handshake", "STARTTLS command")
    AUTH = ("helo_timeout", "performing the EHLO handshake", "AUTH command")
    XFORWARD = ("xforward_timeout", "sending XFORWARD", "XFORWARD command")
    MAIL = ("mail_timeout", "sending MAIL FROM", "MAIL FROM command")
    RCPT = ("rcpt_timeout", "sending RCPT TO", "RCPT TO command")
    DATA = ("data_init_timeout", "sending DATA command", "DATA command")
    CONTENT = ("data_xfer_timeout", "sending message body", "end of DATA command")
    DOT = (
        "data_done_timeout",
        "sending end of data -- message may be sent more than once",
        "end of DATA command",
    )
    RSET = ("rset_timeout", "sending RSET", "RSET command")
    QUIT = ("quit_timeout", "sending QUIT", "QUIT command")

    @property
    def while_text(self) -> str:
        """The words behind "while" in a log line."""
        return self.value[1]

    @property
    def command_text(self) -> str:
        """The words behind "in reply to" in a log line."""
        return self.value[2]

    def timeout_parameter(self, *, lmtp: bool = False) -> str:
        """Return the name of the parameter that limits this phase. (LMTP's greeting is limited by that of LHLO.)"""
        name = self.value[0]
        if lmtp:
            return "lmtp_lhlo_timeout" if name == "helo_timeout" else f"lmtp_{name}"
        return f"smtp_{name}"


def lost_text(peer: str, phase: Phase) -> str:
    """Return the log text for a connection that ended; ``peer`` is ``host[address]``. Its status is 4.4.2."""
    return f"lost connection with {peer} while {phase.while_text}"


def timed_out_text(peer: str, phase: Phase) -> str:
    """Return the log text for a conversation that took too long. Its status is 4.4.2."""
    return f"conversation with {peer} timed out while {phase.while_text}"


def said_text(peer: str, reply: SmtpReply, phase: Phase) -> str:
    """Return the log text for a refusal."""
    return f"host {peer} said: {reply.text} (in reply to {phase.command_text})"


def refused_text(peer: str, reply: SmtpReply) -> str:
    """Return the log text for a greeting or EHLO that was refused."""
    return f"host {peer} refused to talk to me: {reply.text}"


def accepted_text(reply: SmtpReply) -> str:
    """Return the log text of a delivery: the reply to the end of the message."""
    return reply.text
