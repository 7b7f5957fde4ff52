CREATE TABLE thalweg_store (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
CREATE TABLE study (
	"key" INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	config TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	wall_seconds DOUBLE NOT NULL, 
	num_created INTEGER NOT NULL, 
	PRIMARY KEY ("key"), 
	UNIQUE (name)
);
CREATE TABLE session (
	"key" INTEGER NOT NULL, 
	study_key INTEGER NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	pid_started DOUBLE NOT NULL, 
	opened DOUBLE NOT NULL, 
	heartbeat DOUBLE NOT NULL, 
	closed DOUBLE, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(study_key) REFERENCES study ("key")
);
CREATE INDEX ix_session_study_key ON session (study_key);
CREATE TABLE run (
	"key" INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	study_key INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	hyperparameters TEXT NOT NULL, 
	horizon BIGINT NOT NULL, 
	until BIGINT NOT NULL, 
	seed BIGINT NOT NULL, 
	origin TEXT NOT NULL, 
	parent_key INTEGER, 
	parent_generation INTEGER NOT NULL, 
	fork_position BIGINT NOT NULL, 
	generation INTEGER NOT NULL, 
	status TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	error TEXT, 
	created DOUBLE NOT NULL, 
	started DOUBLE, 
	ended DOUBLE, 
	heartbeat DOUBLE, 
	host TEXT, 
	pid INTEGER, 
	pid_started DOUBLE, 
	PRIMARY KEY ("key"), 
	UNIQUE (study_key, number), 
	UNIQUE (id), 
	FOREIGN KEY(study_key) REFERENCES study ("key"), 
	FOREIGN KEY(parent_key) REFERENCES run ("key")
);
CREATE INDEX ix_run_parent_key ON run (parent_key);
CREATE TABLE spend (
	study_key INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	samples BIGINT NOT NULL, 
	tokens BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	device_seconds DOUBLE NOT NULL, 
	PRIMARY KEY (study_key, run_id, kind), 
	FOREIGN KEY(study_key) REFERENCES study ("key")
);
CREATE TABLE request (
	"key" INTEGER NOT NULL, 
	study_key INTEGER NOT NULL, 
	action TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	answered DOUBLE, 
	outcome TEXT, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(study_key) REFERENCES study ("key")
);
CREATE INDEX ix_request_study_key ON request (study_key);
CREATE TABLE journal (
	"key" INTEGER NOT NULL, 
	run_key INTEGER NOT NULL, 
	num_calls INTEGER NOT NULL, 
	names TEXT NOT NULL, 
	points BLOB NOT NULL, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(run_key) REFERENCES run ("key")
);
CREATE INDEX ix_journal_run_key ON journal (run_key);
CREATE TABLE chunk (
	"key" INTEGER NOT NULL, 
	run_key INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	num_points INTEGER NOT NULL, 
	first_position BIGINT NOT NULL, 
	last_position BIGINT NOT NULL, 
	summary BLOB NOT NULL, 
	positions BLOB NOT NULL, 
	times BLOB NOT NULL, 
	point_values BLOB NOT NULL, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(run_key) REFERENCES run ("key")
);
CREATE INDEX chunk_by_metric ON chunk (run_key, metric);
CREATE TABLE cut (
	"key" INTEGER NOT NULL, 
	run_key INTEGER NOT NULL, 
	generation INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(run_key) REFERENCES run ("key")
);
CREATE INDEX ix_cut_run_key ON cut (run_key);
CREATE TABLE report (
	"key" INTEGER NOT NULL, 
	run_key INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	metrics TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	hidden BOOLEAN NOT NULL, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(run_key) REFERENCES run ("key")
);
CREATE INDEX ix_report_run_key ON report (run_key);
CREATE TABLE checkpoint (
	run_key INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	folder TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	num_bytes BIGINT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (run_key, position), 
	FOREIGN KEY(run_key) REFERENCES run ("key")
);
CREATE TABLE test_result (
	run_key INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	metrics TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (run_key), 
	FOREIGN KEY(run_key) REFERENCES run ("key")
);
