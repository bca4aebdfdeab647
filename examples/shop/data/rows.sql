-- The shop's rows: customers, orders, tickets and refunds of two tenants. Run once, right after schema.sql, by the superuser.
--
-- They are the same on every machine: what looks like chance is an md5 of the row's number. Orders of acme have the numbers 100001…,
-- those of globex 200001…; tickets of acme 4001…4960, those of globex 5001…5640. Tickets 4711 and 4712 ask for a refund of an order that
-- was delivered and not refunded yet. No row is newer than June 2026.

-- A day has 23 or 25 hours where clocks change.
SET LOCAL timezone = 'UTC';

CREATE FUNCTION pg_temp.below(bound integer, topic text, id integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN
    (('x' || pg_catalog.substr(pg_catalog.md5(topic || id::text), 1, 8))::bit(32)::bigint % bound)::integer;

CREATE FUNCTION pg_temp.choice(choices text[], topic text, id integer) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    choices[1 + pg_temp.below(pg_catalog.cardinality(choices), topic, id)];

INSERT INTO public.tenants VALUES ('acme', 'Acme Outdoor'), ('globex', 'Globex Office');

CREATE TEMPORARY TABLE counts ON COMMIT DROP AS
SELECT * FROM (VALUES ('acme', 10001, 900, 100001, 7200, 4001, 960), ('globex', 20001, 600, 200001, 4800, 5001, 640))
    AS _ (tenant, first_customer, customers, first_order, orders, first_ticket, tickets);

CREATE TEMPORARY TABLE products ON COMMIT DROP AS
SELECT *, pg_catalog.row_number() OVER (PARTITION BY tenant) - 1 AS position,
    (pg_catalog.count(*) OVER (PARTITION BY tenant))::integer AS products
FROM (VALUES
    ('acme', 'AC-TENT-2', 'Two-person tent', 189.00),
    ('acme', 'AC-BAG-30', 'Daypack 30 l', 79.90),
    ('acme', 'AC-BOOT-M', 'Hiking boots', 149.50),
    ('acme', 'AC-STOVE', 'Gas stove', 44.95),
    ('acme', 'AC-LAMP', 'Head torch', 34.90),
    ('acme', 'AC-MAT', 'Sleeping mat', 59.00),
    ('acme', 'AC-SLEEP', 'Down sleeping bag', 229.00),
    ('acme', 'AC-FLASK', 'Steel flask 1 l', 27.50),
    ('globex', 'GX-CHAIR', 'Office chair', 329.00),
    ('globex', 'GX-DESK', 'Standing desk', 549.00),
    ('globex', 'GX-MON-27', 'Monitor 27 inch', 279.00),
    ('globex', 'GX-DOCK', 'USB-C dock', 149.00),
    ('globex', 'GX-KEYS', 'Mechanical keyboard', 99.00),
    ('globex', 'GX-LAMP', 'Desk lamp', 64.50),
    ('globex', 'GX-ARM', 'Monitor arm', 119.00)
) AS _ (tenant, sku, product, price);

INSERT INTO public.customers
SELECT id, tenant, first || ' ' || last, pg_catalog.lower(first || '.' || last) || '.' || id || '@example.' || host, '+49 30 5550 ' || id,
    street || ' ' || 1 + pg_temp.below(180, 'house', id), pg_catalog.split_part(place, ', ', 1), pg_catalog.split_part(place, ', ', 2),
    date '2019-01-01' + pg_temp.below(2000, 'since', id)
FROM counts
CROSS JOIN pg_catalog.generate_series(first_customer, first_customer + customers - 1) AS id
CROSS JOIN LATERAL (VALUES (
    pg_temp.choice('{Ada,Amir,Bruno,Chiara,Dilan,Elif,Emma,Farid,Greta,Hugo,Ines,Jonas,Kaya,Lena,Luca,Maja,Mateo,Mila,Nadia,Noah,Olga,Paul,'
        'Rosa,Sami,Selma,Theo,Tomas,Vera,Yara,Zoe}', 'first', id),
    pg_temp.choice('{Almeida,Bauer,Costa,Demir,Eriksen,Fischer,Garcia,Haddad,Ivanova,Jansen,Kowalski,Lindqvist,Marino,Novak,Okafor,Petrov,'
        'Quist,Rossi,Schneider,Silva,Tanaka,Ueda,Varga,Weber,Yilmaz,Zeman}', 'last', id),
    pg_temp.choice('{com,com,net}', 'host', id),
    pg_temp.choice('{Mill Lane,Station Road,Harbour Street,Church Square,Linden Avenue,Market Street,River Walk,Garden Row}', 'street', id),
    pg_temp.choice('{"Lisbon, PT","Vienna, AT","Berlin, DE","Milan, IT","Antwerp, BE","Utrecht, NL","Lyon, FR","Gdansk, PL","Seville, ES",'
        '"Turku, FI","Graz, AT","Ghent, BE","Porto, PT"}', 'place', id)
)) AS _ (first, last, host, street, place)
ORDER BY id;

-- Orders are spread evenly over 540 days.
INSERT INTO public.orders
SELECT id, tenant, first_customer + pg_temp.below(customers, 'customer', id),
    timestamptz '2026-06-30 18:00Z' - interval '540 days' * (1 - (id - first_order)::float / orders)
        + interval '1 second' * pg_temp.below(6000, 'placed', id),
    sku, product, quantity, price * quantity, 'EUR',
    pg_temp.choice('{delivered,delivered,delivered,delivered,delivered,delivered,delivered,shipped,paid,returned}', 'status', id)
FROM counts
CROSS JOIN pg_catalog.generate_series(first_order, first_order + orders - 1) AS id
CROSS JOIN LATERAL (SELECT 1 + pg_temp.below(3, 'quantity', id) * pg_temp.below(2, 'several', id)) AS _ (quantity)
JOIN products USING (tenant)
WHERE position = pg_temp.below(products, 'product', id)
ORDER BY id;

CREATE TEMPORARY TABLE stories ON COMMIT DROP AS
SELECT *, pg_catalog.row_number() OVER () - 1 AS position
FROM (VALUES
    ('refund', 'Refund for order %1$s',
     'The %2$s from order %1$s arrived damaged. I sent photos last week. Please refund %3$s EUR.'),
    ('refund', 'Money back, please',
     'I returned the %2$s (order %1$s) on time and still wait for my %3$s EUR.'),
    ('refund', 'Charged twice',
     'My card shows order %1$s twice. Please give the second %3$s EUR back.'),
    ('delivery', 'Where is my %2$s?',
     'Order %1$s should have been here on Monday. The tracking page has not moved for days.'),
    ('delivery', 'Parcel left in the rain',
     'The courier left order %1$s at the gate. Box wet, %2$s fine. Please tell them.'),
    ('invoice', 'Invoice with VAT number',
     'I need the invoice of order %1$s over %3$s EUR with our VAT number on it.'),
    ('question', 'Spare parts',
     'Do you sell spare parts for the %2$s? I bought mine with order %1$s.')
) AS _ (kind, subject, body);

-- Each ticket is about one of seven orders that no other ticket is about.
INSERT INTO public.tickets
SELECT ticket, tenant, "order".id,
    least(placed_at + interval '1 day' * (2 + pg_temp.below(20, 'opened', ticket)), timestamptz '2026-06-30 18:00Z'),
    kind, pg_catalog.format(subject, "order".id, product, amount), pg_catalog.format(body, "order".id, product, amount),
    CASE WHEN named THEN 'open' ELSE pg_temp.choice('{open,answered,closed,closed}', 'state', ticket) END
FROM counts
CROSS JOIN pg_catalog.generate_series(first_ticket, first_ticket + tickets - 1) AS ticket
CROSS JOIN LATERAL (SELECT ticket IN (4711, 4712), first_order + 7 * (ticket - first_ticket)) AS _ (named, block)
CROSS JOIN LATERAL (
    SELECT id, placed_at, product, amount FROM public.orders
    WHERE id BETWEEN block AND block + 6 AND (status = 'delivered' OR NOT named)
    ORDER BY id OFFSET CASE WHEN named THEN 0 ELSE pg_temp.below(7, 'order', ticket) END LIMIT 1
) AS "order"
JOIN stories ON position = CASE WHEN named THEN 0 ELSE pg_temp.below(7, 'story', ticket) END
ORDER BY ticket;

-- Returned orders were refunded, and those of most closed tickets that asked for a refund.
INSERT INTO public.refunds (tenant, order_id, ticket_id, amount, reason, created_at, created_by)
SELECT "order".tenant, "order".id, ticket.id, amount,
    pg_temp.choice('{Arrived damaged,Wrong item sent,Never delivered,Returned within 30 days,Charged twice}', 'reason', "order".id),
    least(placed_at + interval '1 day' * (25 + pg_temp.below(10, 'refunded', "order".id)), timestamptz '2026-06-30 18:00Z'), 'support-desk'
FROM public.orders AS "order"
LEFT JOIN public.tickets AS ticket ON ticket.order_id = "order".id AND ticket.kind = 'refund' AND ticket.status = 'closed'
WHERE ticket.id IS NOT NULL OR "order".status = 'returned'
ORDER BY "order".id;
