"""Ray's WorkflowManagementActor: running workflows, read and acted upon through a child process."""
