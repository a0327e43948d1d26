/** The server's types by their short names. */
import type { components } from "../api";

type Schemas = components["schemas"];

export type About = Schemas["About"];
export type ArchiveQuery = Schemas["ArchiveQuery"];
export type AuditEntry = Schemas["AuditEntry"];
export type Attention = Schemas["Attention"];
export type Box = Schemas["Box"];
export type Evidence = Schemas["Evidence"];
export type Finding = Schemas["Finding"];
export type FindingChange = Schemas["FindingChange"];
export type GridFacts = Schemas["GridFacts"];
export type Growth = Schemas["Growth"];
export type Guideline = Schemas["Guideline"];
export type Job = Schemas["Job"];
export type Match = Schemas["Match"];
export type Me = Schemas["Me"];
export type NewFinding = Schemas["NewFinding"];
export type OutlineRuns = Schemas["OutlineRuns"];
export type RemoteStudy = Schemas["RemoteStudy"];
export type SearchAnswer = Schemas["SearchAnswer"];
export type SearchRequest = Schemas["SearchRequest"];
export type Send = Schemas["Send"];
export type Share = Schemas["Share"];
export type Study = Schemas["Study"];
export type StudyQuery = Schemas["StudyQuery"];
export type StudyPage = Schemas["StudyPage"];
export type StudySummary = Schemas["StudySummary"];
export type Trait = Schemas["Trait"];
export type Version = Schemas["Version"];
export type WindowPreset = Schemas["WindowPreset"];
export type Word = Schemas["Word"];
export type Scope = "all" | "same-patient" | "cross-patient";
