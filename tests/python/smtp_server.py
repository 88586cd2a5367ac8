"""A mail server for tests, on a free port of the loopback interface.

Prints one line of JSON with its port, then one for each line that it is sent: a list of the
messages since the last time, and how many connections there were. Such a line is an object that
says what is answered at a stage (MAIL, RCPT, DATA, RSET) from now on: a reply, `hang`, or nothing for what
is usual; with `close`, all connections end. The server ends with its input.
"""

import argparse
import asyncio
import email
import email.policy
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self):
        self.replies = {}
        self.messages = []
        self.connections = []

    async def reply(self, stage, usual):
        reply = self.replies.get(stage)
        if reply == "hang":
            await asyncio.sleep(3600)
        return reply or usual

    async def handle_MAIL(self, server, session, envelope, address, options):
        reply = await self.reply("MAIL", "250 OK")
        if reply.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return reply

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = await self.reply("RCPT", "250 OK")
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_RSET(self, server, session, envelope):
        return await self.reply("RSET", "250 OK")

    async def handle_DATA(self, server, session, envelope):
        tls = server.transport.get_extra_info("ssl_object") is not None
        self.messages.append(described(session, envelope) | {"tls": tls})
        return await self.reply("DATA", "250 2.0.0 Ok: queued as 4FZ1")


def described(session, envelope):
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    part = lambda kind: message.get_body((kind,))
    return {
        "from": envelope.mail_from,
        "to": envelope.rcpt_tos,
        "options": envelope.mail_options,
        "user": session.auth_data.decode() if session.authenticated else None,
        "type": message.get_content_type(),
        "headers": [[name, str(value)] for name, value in message.items()],
        "defects": [str(defect) for it in message.walk() for defect in it.defects],
        "text": part("plain").get_content() if part("plain") else None,
        "html": part("html").get_content() if part("html") else None,
        "ascii": envelope.content.isascii(),
    }


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tls", choices=["none", "starttls", "tls"], default="none")
    arguments.add_argument("--certificate")
    arguments.add_argument("--login", help="user:password")
    arguments.add_argument("--ascii", action="store_true", help="without SMTPUTF8")
    arguments = arguments.parse_args()

    context = None
    if arguments.tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate)
    handler = Handler()

    def authenticate(server, session, envelope, mechanism, data):
        given = f"{data.login.decode()}:{data.password.decode()}"
        return AuthResult(success=given == arguments.login, handled=False, auth_data=data.login)

    def connection():
        protocol = SMTP(
            handler,
            enable_SMTPUTF8=not arguments.ascii,
            require_starttls=arguments.tls == "starttls",
            tls_context=context if arguments.tls == "starttls" else None,
            authenticator=authenticate if arguments.login else None,
            auth_required=bool(arguments.login),
            auth_require_tls=not arguments.login,
        )
        handler.connections.append(protocol)
        return protocol

    loop = asyncio.get_running_loop()
    over_tls = context if arguments.tls == "tls" else None
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=over_tls)
    say({"port": server.sockets[0].getsockname()[1]})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        handler.replies = json.loads(line)
        if handler.replies.pop("close", False):
            for protocol in handler.connections:
                protocol.transport.close()
        say({"messages": handler.messages, "connections": len(handler.connections)})
        handler.messages = []
    # At once: what hangs would be waited for.
    os._exit(0)


def say(what):
    print(json.dumps(what), flush=True)


asyncio.run(main())
