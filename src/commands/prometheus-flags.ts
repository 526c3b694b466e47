import { type Access, readHttpConfigFile } from '../io/http-config.js'
import type { FromFiles } from '../io/secret-file.js'
import { anyText, httpUrl, optional, required, type Values } from './flags.js'

/** How Prometheus is asked, for every command that asks it. */
export const prometheusFlags = {
  'prometheus-url': required(httpUrl, 'base URL of Prometheus'),
  'prometheus-http-config-file': optional(
    anyText,
    "TLS and credentials for Prometheus, in the format of promtool's --http.config.file",
  ),
} as const

/** @throws {UsageError} when the file cannot be used */
export function prometheusAccess(values: Values<typeof prometheusFlags>): FromFiles<Access> | undefined {
  const path = values['prometheus-http-config-file']
  return path === undefined
    ? undefined
    : readHttpConfigFile(path, { flag: '--prometheus-http-config-file', urls: [values['prometheus-url']] })
}
