import { Agent } from 'node:https'

import { UsageError } from '../core/errors.js'
import { AGENT_LIMITS } from './http-client.js'
import { fromFiles, type FromFiles } from './secret-file.js'
import {
  certificatesOf,
  checkSection,
  type ConfigFile,
  keyPairOf,
  mustBeOff,
  textOfFile,
  tlsVersionsOf,
} from './tls-files.js'
import { entriesOf, optionalItemsOf, readYaml, textOf, type YamlField } from './yaml-field.js'

/** How a server is asked: with which credentials, and whom we take for it. */
export interface Access {
  /** For https; null: as without a configuration file. */
  readonly agent: Agent | null
  /** Value of the header of that name; null: none. */
  readonly authorization: string | null
  /** More headers, such as the tenant of a Mimir. */
  readonly headers: readonly Header[]
  /** Texts that must not show up anywhere. */
  readonly secrets: readonly string[]
  /** What is allowed and not wise, for the log. */
  readonly warnings: readonly string[]
}

export interface Header {
  readonly name: string
  readonly value: string
}

const INLINE = 'must not stand in the file'
const NO_PROXY = 'is not supported: no proxy is used'
const NO_SECRET_MANAGER = 'is not supported: there is no secret manager'

/**
 * Reads a file in the format of promtool's --http.config.file, of Prometheus's http_config; secrets stand in files of their own.
 *
 * @param options.flag - how the user named the file, for messages
 * @param options.urls - the servers that are asked so
 * @throws {UsageError} naming the file, the line and the field; never a value
 */
export function readHttpConfigFile(
  path: string,
  { flag, urls }: { readonly flag: string; readonly urls: readonly string[] },
): FromFiles<Access> {
  const what = `${flag}: ${path}`
  const refuse = (reason: string): never => {
    throw new UsageError(`${what}: ${reason}`)
  }
  return fromFiles(what, (read) => {
    const [document, ...others] = readYaml(read(path, refuse), what, { secret: true })
    if (document === undefined || others.length > 0) return refuse('expected one YAML document')
    return accessOf(document, { file: { path, read }, urls })
  })
}

const KEYS = ['basic_auth', 'authorization', 'tls_config', 'http_headers', 'follow_redirects', 'enable_http2']

function accessOf(
  document: YamlField,
  { file, urls }: { readonly file: ConfigFile; readonly urls: readonly string[] },
): Access {
  checkSection(document, KEYS, {
    bearer_token: `${INLINE}: use authorization with credentials_file`,
    bearer_token_file: 'is the old form of authorization with credentials_file',
    oauth2: 'is not supported: use authorization with credentials_file',
    proxy_url: NO_PROXY,
    no_proxy: NO_PROXY,
    proxy_from_environment: NO_PROXY,
    proxy_connect_header: NO_PROXY,
  })
  const [basicAuth, authorization, tls] = [
    document.at('basic_auth'),
    document.at('authorization'),
    document.at('tls_config'),
  ]
  mustBeOff(document.at('follow_redirects'), 'redirects are not followed, with or without credentials')
  mustBeOff(document.at('enable_http2'), 'HTTP/1.1 is spoken')
  if (basicAuth.value !== undefined && authorization.value !== undefined) {
    authorization.refuse('cannot be used together with basic_auth')
  }
  const credentials =
    basicAuth.value !== undefined
      ? basicCredentials(basicAuth, file)
      : authorization.value !== undefined
        ? tokenCredentials(authorization, file)
        : null
  const headers = headersOf(document.at('http_headers'), file)
  const secrets = [...(credentials?.secrets ?? []), ...headers.secrets]
  const plain = urls.filter((url) => url.startsWith('http:'))
  if (tls.value !== undefined && plain.length > 0) {
    tls.refuse(`is of no use for ${plain.join(', ')}: the URL must begin with https`)
  }
  return {
    agent: tls.value === undefined ? null : agentOf(tls, file),
    authorization: credentials?.header ?? null,
    headers: headers.headers,
    secrets,
    warnings: [
      ...(secrets.length > 0 && plain.length > 0 ? [`credentials go to ${plain.join(', ')} unencrypted`] : []),
      ...(tls.at('insecure_skip_verify').value === true
        ? ['insecure_skip_verify: whoever answers is taken for the server, and is sent the credentials']
        : []),
    ],
  }
}

/** RFC 9110, 5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~\w-]+$/
const HEADER_VALUE = /^[\x20-\x7e]+$/

interface Credentials {
  readonly header: string
  readonly secrets: readonly string[]
}

function basicCredentials(section: YamlField, file: ConfigFile): Credentials {
  checkSection(section, ['username', 'username_file', 'password_file'], {
    password: `${INLINE}: use password_file`,
    username_ref: NO_SECRET_MANAGER,
    password_ref: NO_SECRET_MANAGER,
  })
  const [name, nameFile, passwordFile] = [
    section.at('username'),
    section.at('username_file'),
    section.at('password_file'),
  ]
  if ((name.value === undefined) === (nameFile.value === undefined)) {
    section.refuse('must have either username or username_file')
  }
  const username = name.value === undefined ? secretOf(nameFile, file) : textOf(name)
  if (username.includes(':')) (name.value === undefined ? nameFile : name).refuse('must hold no colon')
  const password = secretOf(passwordFile, file)
  const encoded = Buffer.from(`${username}:${password}`).toString('base64')
  return { header: `Basic ${encoded}`, secrets: [encoded, password] }
}

function tokenCredentials(section: YamlField, file: ConfigFile): Credentials {
  checkSection(section, ['type', 'credentials_file'], {
    credentials: `${INLINE}: use credentials_file`,
    credentials_ref: NO_SECRET_MANAGER,
  })
  const typeField = section.at('type')
  const type = typeField.value === undefined ? 'Bearer' : textOf(typeField)
  if (!TOKEN.test(type)) typeField.fail('one word, such as Bearer')
  if (type.toLowerCase() === 'basic') typeField.refuse('cannot be Basic: use basic_auth')
  const tokenField = section.at('credentials_file')
  const token = secretOf(tokenField, file)
  if (!HEADER_VALUE.test(token)) tokenField.refuse('names a file whose content is not fit for an HTTP header')
  return { header: `${type} ${token}`, secrets: [token] }
}

/** What is ours to say, or has a key of its own. */
const TAKEN_HEADERS: readonly string[] = [
  ...['accept', 'accept-encoding', 'authorization', 'connection', 'content-encoding', 'content-length', 'content-type'],
  ...[
    'expect',
    'host',
    'keep-alive',
    'proxy-authorization',
    'te',
    'trailer',
    'transfer-encoding',
    'upgrade',
    'user-agent',
  ],
]

/** A mapping of names to one value each, which stands in the file or, when it is a secret, in one of its own. */
function headersOf(
  section: YamlField,
  file: ConfigFile,
): { readonly headers: readonly Header[]; readonly secrets: readonly string[] } {
  const secrets: string[] = []
  const headers = (section.value === undefined ? [] : entriesOf(section)).map(([name, field]): Header => {
    if (!TOKEN.test(name)) field.refuse('is no name of an HTTP header')
    if (TAKEN_HEADERS.includes(name.toLowerCase())) field.refuse('is not to be set here')
    checkSection(field, ['values', 'files'], { secrets: `${INLINE}: use files` })
    const [values, files] = [optionalItemsOf(field.at('values')), optionalItemsOf(field.at('files'))]
    if (values.length + files.length !== 1) field.refuse('must have one value, in values or in files')
    const kept = files.map((each) => secretOf(each, file))
    secrets.push(...kept)
    const [value = ''] = [...values.map(textOf), ...kept]
    if (!HEADER_VALUE.test(value)) field.refuse('has a value that is not fit for an HTTP header')
    return { name, value }
  })
  return { headers, secrets }
}

/** One line of text, without what stands around it. */
function secretOf(field: YamlField, file: ConfigFile): string {
  const secret = textOfFile(field, file).trim()
  if (secret === '') return field.refuse('names an empty file')
  return /[\0\r\n]/.test(secret) ? field.refuse('names a file with more than one line') : secret
}

function agentOf(section: YamlField, file: ConfigFile): Agent {
  checkSection(
    section,
    ['ca_file', 'cert_file', 'key_file', 'server_name', 'insecure_skip_verify', 'min_version', 'max_version'],
    {
      ca: `${INLINE}: use ca_file`,
      cert: `${INLINE}: use cert_file`,
      key: `${INLINE}: use key_file`,
      ca_ref: NO_SECRET_MANAGER,
      cert_ref: NO_SECRET_MANAGER,
      key_ref: NO_SECRET_MANAGER,
    },
  )
  const [ca, cert, key] = [section.at('ca_file'), section.at('cert_file'), section.at('key_file')]
  const [name, skip] = [section.at('server_name'), section.at('insecure_skip_verify')]
  if ((cert.value === undefined) !== (key.value === undefined)) section.refuse('must have both cert_file and key_file')
  if (skip.value !== undefined && typeof skip.value !== 'boolean') skip.fail('true or false')
  return new Agent({
    ...AGENT_LIMITS,
    ...tlsVersionsOf(section),
    ...(ca.value === undefined ? {} : { ca: certificatesOf(ca, file) }),
    ...(cert.value === undefined ? {} : keyPairOf({ cert, key }, file)),
    ...(name.value === undefined ? {} : { servername: textOf(name) }),
    rejectUnauthorized: skip.value !== true,
  })
}
