output "services" {
  description = "Where each PoP serves."
  value       = { for name, p in var.pops : name => "http://${p.address}:${var.port}/" }
}

output "admin" {
  description = "Each PoP's admin API."
  value       = { for name, m in module.pop : name => m.admin_url }
}
