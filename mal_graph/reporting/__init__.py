"""Results as JSON, text, diagrams and plots."""
