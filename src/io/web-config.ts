import { UsageError } from '../core/errors.js'
import { isBcryptHash, MAX_BCRYPT_COST, type Users } from './basic-auth.js'
import { fromFiles, type FromFiles } from './secret-file.js'
import {
  certificatesOf,
  checkSection,
  type ConfigFile,
  keyPairOf,
  mustBeOff,
  tlsVersionsOf,
  type TlsVersions,
} from './tls-files.js'
import { entriesOf, readYaml, textOf, type YamlField } from './yaml-field.js'

/** How a listener is guarded. */
export interface WebConfig {
  /** Null: plain HTTP. */
  readonly tls: ListenerTls | null
  /** None: whoever comes is served. */
  readonly users: Users
  /** For every answer. */
  readonly headers: Readonly<Record<string, string>>
}

export interface ListenerTls extends TlsVersions {
  readonly cert: string
  readonly key: string
  /** Authorities whose certificates a client must show, in PEM; null: it need not show any. */
  readonly clientCa: string | null
}

/** Headers of the ecosystem's format, with the values that they may have; null: any. */
const HEADERS: Readonly<Record<string, readonly string[] | null>> = {
  'Content-Security-Policy': null,
  'Strict-Transport-Security': null,
  'X-Content-Type-Options': ['nosniff'],
  'X-Frame-Options': ['deny', 'sameorigin'],
  'X-XSS-Protection': null,
}

const INLINE = 'must not stand in the file'

/**
 * Reads a file in the web-config.yml format of Prometheus's exporter-toolkit.
 *
 * @param flag - how the user named the file, for messages
 * @throws {UsageError} naming the file, the line and the field; never a value
 */
export function readWebConfigFile(path: string, flag: string): FromFiles<WebConfig> {
  const what = `${flag}: ${path}`
  const refuse = (reason: string): never => {
    throw new UsageError(`${what}: ${reason}`)
  }
  let first: WebConfig | null = null
  return fromFiles(what, (read) => {
    const [document, ...others] = readYaml(read(path, refuse), what, { secret: true })
    if (document === undefined || others.length > 0) return refuse('expected one YAML document')
    const config = webConfigOf(document, { path, read })
    first ??= config
    // A listener is made with these.
    if ((first.tls === null) !== (config.tls === null)) refuse('TLS is switched on and off by a restart only')
    if ((first.tls?.clientCa === null) !== (config.tls?.clientCa === null)) {
      refuse('client_auth_type takes effect with a restart only')
    }
    return config
  })
}

function webConfigOf(document: YamlField, file: ConfigFile): WebConfig {
  checkSection(document, ['tls_server_config', 'http_server_config', 'basic_auth_users'], {
    rate_limit: 'is not supported',
  })
  const [tls, http, users] = [
    document.at('tls_server_config'),
    document.at('http_server_config'),
    document.at('basic_auth_users'),
  ]
  return {
    tls: tls.value === undefined ? null : tlsOf(tls, file),
    users: users.value === undefined ? new Map() : usersOf(users),
    headers: http.value === undefined ? {} : headersOf(http),
  }
}

const CLIENT_AUTH_TYPES = ['NoClientCert', 'RequireAndVerifyClientCert']

function tlsOf(section: YamlField, file: ConfigFile): ListenerTls {
  checkSection(section, ['cert_file', 'key_file', 'client_auth_type', 'client_ca_file', 'min_version', 'max_version'], {
    cert: `${INLINE}: use cert_file`,
    key: `${INLINE}: use key_file`,
    client_ca: `${INLINE}: use client_ca_file`,
    client_allowed_sans: 'is not supported: give client_ca_file an authority of its own',
    cipher_suites: "is not supported: Node's own list is used",
    prefer_server_cipher_suites: "is not supported: Node's own list is used",
    curve_preferences: "is not supported: Node's own list is used",
  })
  const authType = section.at('client_auth_type')
  const clientCa = section.at('client_ca_file')
  const wanted = authType.value === undefined ? 'NoClientCert' : textOf(authType)
  if (!CLIENT_AUTH_TYPES.includes(wanted)) authType.fail(`${CLIENT_AUTH_TYPES.join(' or ')}, the others do not protect`)
  const required = wanted === 'RequireAndVerifyClientCert'
  if (required !== (clientCa.value !== undefined)) {
    section.refuse('must have client_auth_type: RequireAndVerifyClientCert and client_ca_file together')
  }
  return {
    ...keyPairOf({ cert: section.at('cert_file'), key: section.at('key_file') }, file),
    ...tlsVersionsOf(section),
    clientCa: required ? certificatesOf(clientCa, file) : null,
  }
}

function usersOf(section: YamlField): Users {
  return new Map(
    entriesOf(section).map(([user, field]) => {
      if (user === '' || user.includes(':')) field.refuse('is no name of a user: it must hold something, and no colon')
      const hash = textOf(field)
      if (!isBcryptHash(hash))
        field.fail(`a bcrypt hash with a cost of at most ${MAX_BCRYPT_COST}, as of htpasswd -nBC 10`)
      return [user, hash]
    }),
  )
}

function headersOf(section: YamlField): Readonly<Record<string, string>> {
  checkSection(section, ['http2', 'headers'], {})
  mustBeOff(section.at('http2'), 'HTTP/1.1 is spoken')
  const headers = section.at('headers')
  if (headers.value === undefined) return {}
  checkSection(headers, Object.keys(HEADERS), {})
  return Object.fromEntries(
    entriesOf(headers).map(([name, field]) => {
      const value = textOf(field)
      const allowed = HEADERS[name] ?? null
      if (allowed !== null && !allowed.includes(value)) field.fail(allowed.join(' or '))
      if (!/^[\x20-\x7e]+$/.test(value)) field.fail('one line of plain text')
      return [name.toLowerCase(), value]
    }),
  )
}
