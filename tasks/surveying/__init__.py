"""The cost of backbones: parameters, operations, memory and throughput, computed and measured."""
