output "config" {
  description = "The config file of \"anyedge pop\", in YAML. It holds paths of secrets, never secrets."
  value       = "# Rendered by Terraform for ${var.node.name}.\n${local.config}"
}

output "revision" {
  description = "Changes exactly when the config does."
  value       = sha256(local.config)
}

output "admin_url" {
  description = "The operator's API."
  value       = "http://${var.admin_address}"
}
