"""Prints the topics with a prefix as JSON: their partitions and what was set for each of them.

usage: topics.py --brokers HOST:PORT --prefix PREFIX
"""

import argparse
import json

from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, ResourceType


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--brokers", required=True)
    arguments.add_argument("--prefix", required=True)
    options = arguments.parse_args()
    admin = AdminClient({"bootstrap.servers": options.brokers})
    found = admin.list_topics(timeout=30).topics
    topics = {name: topic for name, topic in found.items() if name.startswith(options.prefix)}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    described = {}
    for resource, answer in admin.describe_configs(resources).items():
        entries = answer.result(timeout=30).values()
        own = [entry for entry in entries if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value]
        described[resource.name] = {
            "partitions": len(topics[resource.name].partitions),
            "settings": {entry.name: entry.value for entry in own},
        }
    print(json.dumps(described))


main()
