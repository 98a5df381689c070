"""Fine-tune the backbone below a trained head, rung by rung, and measure what each rung gains."""
