"""What backbones cost: parameters, operations, memory and throughput, computed and measured."""
