variable "binary" {
  description = "The anyedge binary, an absolute path."
  type        = string
  nullable    = false

  validation {
    condition     = startswith(var.binary, "/") && fileexists(var.binary)
    error_message = "binary is the absolute path of an existing file: run \"make build\" first."
  }
}

variable "state_dir" {
  description = "Where configs, logs and process ids are kept. Default: .run beside this file."
  type        = string
  default     = null
}

variable "pops" {
  description = "The points of presence, by name. Addresses are on loopback."
  type = map(object({
    region    = string
    latitude  = number
    longitude = number
    address   = string
    router_id = string
  }))
  default = {
    fra = { region = "eu", latitude = 50.11, longitude = 8.68, address = "127.79.1.1", router_id = "10.0.1.1" }
    iad = { region = "us", latitude = 39.04, longitude = -77.49, address = "127.79.2.1", router_id = "10.0.2.1" }
  }
  nullable = false

  validation {
    condition     = alltrue([for p in var.pops : startswith(p.address, "127.")])
    error_message = "This environment runs on loopback: addresses are in 127.0.0.0/8."
  }
}

variable "port" {
  description = "Port of the service listeners, above 1023."
  type        = number
  default     = 8080
}

variable "admin_port" {
  description = "Port of the admin APIs."
  type        = number
  default     = 8600
}

variable "origin" {
  description = "Address of the demo origin."
  type        = string
  default     = "127.79.0.9:9000"
}

variable "router" {
  description = "The upstream router that the PoPs try to reach."
  type        = object({ address = string, port = number })
  default     = { address = "127.79.0.2", port = 1179 }
}
