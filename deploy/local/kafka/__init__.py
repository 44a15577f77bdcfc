"""Apache Kafka from its Maven jars: one to three KRaft nodes on loopback."""

from deploy.local.kafka.cluster import KafkaCluster
from deploy.local.kafka.node import KafkaPorts

__all__ = ["KafkaCluster", "KafkaPorts"]
