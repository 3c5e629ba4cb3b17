export type { components, operations, paths } from './generated/jobs.js'
export type { Auth, ClientToServerEvents, ServerToClientEvents } from './generated/events.js'
