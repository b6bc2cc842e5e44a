"""What is known of Kubernetes objects: their schemas, and what the API server would say to one."""
