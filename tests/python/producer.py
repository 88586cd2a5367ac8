"""Writes records straight to Herald's topics, as a producer in another language would.

Reads one JSON object a line:

    {"topic": "herald.events", "key": "k", "headers": {}, "schema": "event", "record": {}, "cut": 0}
    {"topic": "herald.events", "key": "k", "headers": {}, "bytes": "base64"}

A record is framed as Confluent's serializer does it where --registry is given, else in Avro's
single-object encoding; `cut` takes so many bytes off its end. When the broker has acked everything,
it writes one object a line, in the same order:

    {"topic": "herald.events", "partition": 0, "offset": 0, "bytes": "base64"}

usage: producer.py --brokers HOST:PORT --schemas DIRECTORY [--registry URL]
"""

import argparse
import base64
import io
import json
import pathlib
import sys

import fastavro
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext


def confluent(registry, schemas):
    client = SchemaRegistryClient({"url": registry})
    serializers = {}

    def serialize(topic, name, record):
        if name not in serializers:
            serializers[name] = AvroSerializer(client, (schemas / f"{name}.avsc").read_text())
        return serializers[name](record, SerializationContext(topic, MessageField.VALUE))

    return serialize


def single_object(schemas):
    parsed = {}

    def serialize(_topic, name, record):
        if name not in parsed:
            schema = fastavro.parse_schema(json.loads((schemas / f"{name}.avsc").read_text()))
            canonical = fastavro.schema.to_parsing_canonical_form(schema)
            # Shown in the order in which it is written.
            shown = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
            parsed[name] = schema, b"\xc3\x01" + shown
        schema, header = parsed[name]
        datum = io.BytesIO()
        fastavro.schemaless_writer(datum, schema, record)
        return header + datum.getvalue()

    return serialize


def value_of(item, serialize):
    if "bytes" in item:
        return base64.b64decode(item["bytes"])
    value = serialize(item["topic"], item["schema"], item["record"])
    return value[: len(value) - item.get("cut", 0)]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--brokers", required=True)
    arguments.add_argument("--schemas", required=True, type=pathlib.Path)
    arguments.add_argument("--registry")
    options = arguments.parse_args()
    if options.registry:
        serialize = confluent(options.registry, options.schemas)
    else:
        serialize = single_object(options.schemas)
    failures = []
    acked = {}

    def on_delivery(number):
        def report(error, message):
            if error is not None:
                failures.append(str(error))
                return
            acked[number] = {
                "topic": message.topic(),
                "partition": message.partition(),
                "offset": message.offset(),
                "bytes": base64.b64encode(message.value() or b"").decode(),
            }

        return report

    # The partitioner of the Java client, which is Herald's too.
    producer = Producer(
        {
            "bootstrap.servers": options.brokers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            # What a broker takes is measured after this, what a client sends before.
            "compression.type": "lz4",
            "message.max.bytes": 8_000_000,
        }
    )
    for number, line in enumerate(sys.stdin):
        item = json.loads(line)
        producer.produce(
            item["topic"],
            key=item["key"],
            value=value_of(item, serialize),
            headers=item.get("headers", {}),
            on_delivery=on_delivery(number),
        )
    left = producer.flush(30)
    if failures or left:
        sys.exit(f"{left} records without an ack; {failures[:3]}")
    for number in sorted(acked):
        print(json.dumps(acked[number]))


main()
