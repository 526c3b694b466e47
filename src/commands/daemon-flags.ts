import type { FromFiles } from '../io/secret-file.js'
import { readWebConfigFile, type WebConfig } from '../io/web-config.js'
import { anyText, intervalSeconds, oneOf, optional, port, toggle, type Values, withDefault } from './flags.js'
import { prometheusFlags } from './prometheus-flags.js'

/** Flags that both daemons have. */
export const daemonFlags = {
  ...prometheusFlags,
  'poll-interval-seconds': withDefault(intervalSeconds, '5', 'seconds between polls'),
  'listen-address': withDefault(anyText, '0.0.0.0', 'address on which this daemon serves /metrics'),
  'web-config-file': optional(
    anyText,
    "TLS and users for this daemon's own pages and /metrics, in the web-config.yml format of Prometheus's exporters",
  ),
  'log-format': optional(oneOf('json', 'table'), 'json or table; unless given, table on a terminal and json elsewhere'),
  check: toggle('check flags, files and queries and exit without serving'),
} as const

/** @throws {UsageError} when the file cannot be used */
export function webConfig(
  values: Pick<Values<typeof daemonFlags>, 'web-config-file'>,
): FromFiles<WebConfig> | undefined {
  const path = values['web-config-file']
  return path === undefined ? undefined : readWebConfigFile(path, '--web-config-file')
}

/** The port on which a daemon serves /metrics, under the name that existing Deployments use. */
export const servePort = (defaultText: string) =>
  withDefault(port, defaultText, 'port on which this daemon serves /metrics (0: any free one)')
